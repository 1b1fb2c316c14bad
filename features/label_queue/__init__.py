"""The label queue, which asks people about predictions."""
