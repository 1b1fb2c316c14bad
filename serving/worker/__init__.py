"""One pipeline as a worker serves it."""
