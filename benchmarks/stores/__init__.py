"""Claims on what may happen to the stores."""
