"""Counters and metrics of the service."""
