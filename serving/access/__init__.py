"""Who may ask the service: keys, rates, authentication."""
