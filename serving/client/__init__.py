"""Clients of the service; they need none of it."""
