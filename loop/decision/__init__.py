"""Decisions: from evidence to an update."""
