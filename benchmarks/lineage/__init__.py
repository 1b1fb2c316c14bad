"""Versions made again: equal digests and equal outputs from a recipe, and what will not rebuild."""
