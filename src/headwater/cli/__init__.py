"""The command line."""

from headwater.cli.app import app, main, run

__all__ = ["app", "main", "run"]
