"""Rules that say whether an update is due, one family a file."""
