"""The store of versions in MLflow: the connection, reading, publishing, housekeeping."""
