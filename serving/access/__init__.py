"""Access to the service: keys, rates, authentication."""
