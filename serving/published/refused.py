"""A refusal to begin: the keeper writes it down, and the process that started the keeper shows it."""

from pathlib import Path

import msgspec

from headwater.infra.settings import Settings
from headwater.spec.errors import ChangedError

__all__ = ["Refused", "check_not_refused", "refused_file"]


class Refused(msgspec.Struct, frozen=True):
    """The difference between declaration and stores, and the next step."""

    what: str
    hint: str


def refused_file(settings: Settings) -> Path:
    """Return the file that the keeper writes if it refuses to begin."""
    folder = settings.root / "live"
    folder.mkdir(exist_ok=True)
    return folder / "refused"


def check_not_refused(settings: Settings) -> None:
    """Raise the refusal that the keeper wrote, if it wrote one.

    Raises
    ------
    ChangedError
        If a declaration differs from what is recorded, or from what the champion learned.
    """
    try:
        content = refused_file(settings).read_bytes()
    except FileNotFoundError:
        return
    refusal = msgspec.json.decode(content, type=Refused)
    raise ChangedError(refusal.what, refusal.hint)
