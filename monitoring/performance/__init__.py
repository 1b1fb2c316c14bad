"""How every version does: measured and estimated, as a table."""
