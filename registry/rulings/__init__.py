"""What people ruled while a model serves: rows that are added and never changed."""
