"""The keeper: the process beside the workers that follows champions and learns."""
