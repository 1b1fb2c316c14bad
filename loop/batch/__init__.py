"""Batch features and batch prediction."""
