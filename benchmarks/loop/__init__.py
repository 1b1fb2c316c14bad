"""The whole loop: the demo, a replay beside learning alone, a replay beside the service."""
