"""Upkeep of a home and its stores: backup, restore, moving, deleting a pipeline, another signing key."""
