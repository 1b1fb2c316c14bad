"""The service under load while it is killed, swapped, traced or fuzzed: errors, losses, memory."""
