"""What is recorded, read back: from the database and the archive."""
