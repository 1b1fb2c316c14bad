"""Runs of batch prediction."""
