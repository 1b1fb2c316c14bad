"""Why a service may not begin: the keeper writes it down, the process that started it tells it."""

from pathlib import Path

import msgspec

from headwater.infra.settings import Settings
from headwater.spec.errors import ChangedError

__all__ = ["Refused", "check_not_refused", "refused_file"]


class Refused(msgspec.Struct, frozen=True):
    """What differs between the declaration and the stores, and the way on."""

    what: str
    hint: str


def refused_file(where: Settings) -> Path:
    """Give the file that a keeper makes instead of beginning."""
    folder = where.root / "live"
    folder.mkdir(exist_ok=True)
    return folder / "refused"


def check_not_refused(where: Settings) -> None:
    """Raise what the keeper wrote down, if it did.

    Raises
    ------
    ChangedError
        If a declaration differs from what is recorded, or what the champion learned.
    """
    try:
        text = refused_file(where).read_bytes()
    except FileNotFoundError:
        return
    found = msgspec.json.decode(text, type=Refused)
    raise ChangedError(found.what, found.hint)
