"""Checks that a home, its inbox and its database belong to one log."""
