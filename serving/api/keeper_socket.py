"""The meeting point of workers and keeper: a Unix socket, which a file of the home names."""

from pathlib import Path

from headwater.infra.settings import Settings

__all__ = ["BY_HEADER", "socket_file"]

BY_HEADER = "headwater-by"
"""The header in which a worker passes on the name of the request's key, quoted as in a URL."""


def socket_file(settings: Settings) -> Path:
    """Return the file that holds the path of the keeper's socket; a home's own path may be too long."""
    return settings.root / "live" / "operations"
