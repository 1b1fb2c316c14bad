"""Whether a home, its inbox and its database are of one log."""
