"""Monitoring: verdicts, estimates and triggers on shifted, shuffled and unchanged streams."""
