"""What examples may do to a learned state: which are unusual, and how much worse they make it."""
