"""Routing: bandits and A/B tests on simulated versions whose rates are known."""
