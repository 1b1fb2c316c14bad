"""What the tables of a user say."""
