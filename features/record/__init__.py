"""From a prediction or a label to a synced record."""
