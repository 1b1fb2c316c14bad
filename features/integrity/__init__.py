"""Damage of the stores: found, named, and mended from a whole copy."""
