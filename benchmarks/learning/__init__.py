"""Updates: what they cost in time and memory, and what they gain over whole years of flights."""
