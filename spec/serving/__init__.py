"""Serving: routing, bandits, questions to people, batch predictions."""
