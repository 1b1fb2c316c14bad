"""Recording: from a prediction or a label to a synced record."""
