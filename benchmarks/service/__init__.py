"""The service under load while it is killed, swapped or traced: errors, losses, memory."""
