"""What a user declares, the records, and the errors: plain data, no input or output."""
