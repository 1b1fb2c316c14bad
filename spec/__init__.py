"""A user's declarations, the records and the errors: plain data, without input or output."""
