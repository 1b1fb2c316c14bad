"""The wire format: schemas, problems, operations, replies."""
