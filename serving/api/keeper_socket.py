"""How workers and the keeper find each other: a Unix socket, named in a file of the home."""

from pathlib import Path

from headwater.infra.settings import Settings

__all__ = ["BY_HEADER", "socket_file"]

BY_HEADER = "headwater-by"
"""The header in which a worker names the key that asked, quoted as in a URL."""


def socket_file(settings: Settings) -> Path:
    """Return the file that says where the keeper listens: a home may be too long a path for a socket."""
    return settings.root / "live" / "operations"
