"""Records and their parts: predictions, labels, features, sources, values."""
