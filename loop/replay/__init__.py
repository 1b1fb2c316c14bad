"""History, imported or played."""
