"""Tables of batch features."""
