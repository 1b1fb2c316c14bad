"""What headwater must reach: one file a claim, each measured within one run."""
