"""HTTP itself, byte by byte and fuzzed: what is wrong is refused, and nothing fails."""
