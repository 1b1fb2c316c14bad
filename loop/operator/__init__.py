"""Rulings of operators and of routings while models serve."""
