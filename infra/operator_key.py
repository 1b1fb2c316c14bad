"""The operator's key of a home, in a file that only its owner can read.

``headwater up`` makes it. The clients send it to the service of this machine, and headwater's processes
and commands to the Prefect that ``up`` started. It lies beside the stores, which whoever can read it can
change anyway.
"""

import os
import re
import secrets
import stat
from pathlib import Path

from headwater.infra.settings import Settings

__all__ = ["is_private", "operator_key_file", "read_operator_key", "write_operator_key"]

_KEY = re.compile(r"[A-Za-z0-9_-]{1,100}")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def operator_key_file(settings: Settings) -> Path:
    """Return where the key of a home lies, whether or not it is there."""
    return settings.place / "operator.key"


def read_operator_key(settings: Settings) -> str | None:
    """Return the key of a home; None if there is none, or another user's, which cannot be read."""
    try:
        text = operator_key_file(settings).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if _KEY.fullmatch(text) else None


def is_private(settings: Settings) -> bool:
    """Return whether the file is this user's, and nobody else may read or write it."""
    try:
        found = operator_key_file(settings).lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & _OTHERS


def write_operator_key(settings: Settings, key: str) -> None:
    """Replace the key of a home, in one step; the file never has other rights than its owner's."""
    path = settings.root / operator_key_file(settings).name
    made = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
