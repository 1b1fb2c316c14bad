"""Windows, scores, errors and drift."""
