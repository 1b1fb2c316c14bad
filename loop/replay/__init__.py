"""Past events, imported or replayed."""
