"""Processes of the loop that are killed, and storms of events: nothing lost, nothing twice."""
