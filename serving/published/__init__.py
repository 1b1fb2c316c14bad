"""What the keeper publishes to the workers, as files."""
