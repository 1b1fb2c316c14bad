"""What goes over the wire: schemas, problems, operations, ids."""
