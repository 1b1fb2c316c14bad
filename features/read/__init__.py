"""Reading of records, from the database and the archive."""
