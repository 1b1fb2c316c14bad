"""One pipeline in a worker: versions, look-ups, and group commit."""
