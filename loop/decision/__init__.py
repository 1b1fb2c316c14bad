"""From evidence to an update."""
