"""Which change needs somebody."""
