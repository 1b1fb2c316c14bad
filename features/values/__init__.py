"""Values of a user's tables: files, columns, misfits."""
