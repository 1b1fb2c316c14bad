"""What operators and routings decide while models serve."""
