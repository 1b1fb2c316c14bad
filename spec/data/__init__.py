"""What is recorded and what it may be: records, labels, features, sources, values."""
