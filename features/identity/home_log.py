"""The log to which the files below a home folder belong; live files bear its id."""

import sqlite3
from pathlib import Path
from typing import TypeVar

import msgspec

from headwater.features.record.inbox import inbox_file
from headwater.features.record.inbox_identity import read_identity
from headwater.infra.ids import made_at
from headwater.infra.settings import Settings
from headwater.infra.store.published_file import PublishedFile
from headwater.spec.errors import IdentityError

__all__ = ["HomeLog", "OwnedFile"]

T = TypeVar("T")


class _Owned(msgspec.Struct, frozen=True):
    """The content of a file of the live folder."""

    content: msgspec.Raw
    log: str = ""


class HomeLog:
    """The log of a home's pipeline, as its inbox says, and the files that bear its id.

    The inbox is checked against the database when a pipeline is bound. A worker has no database: it
    follows what is live in its home only where that is of the inbox's log.

    Parameters
    ----------
    pipeline, settings
        The pipeline's name, and where the home folder is.
    """

    def __init__(self, pipeline: str, settings: Settings) -> None:
        self._pipeline = pipeline
        self._inbox = inbox_file(pipeline, settings)
        self._log: str | None = None

    @property
    def log(self) -> str | None:
        """The log's id; None while the home has no log of the pipeline."""
        if self._log is None and self._inbox.exists():
            try:
                identity = read_identity(self._inbox)
            except sqlite3.Error:  # just being made, or damaged: whoever records is told
                return None
            self._log = None if identity is None else identity.log
        return self._log

    def wrap(self, content: bytes) -> bytes:
        """Return JSON with the log's id beside it, to be written to a live file."""
        return msgspec.json.encode(_Owned(msgspec.Raw(content), self.log or ""))

    def unwrap(self, content: bytes, file: Path) -> msgspec.Raw:
        """Return the JSON that was passed to :meth:`wrap`.

        Raises
        ------
        IdentityError
            If the file bears the id of another log, or none.
        msgspec.DecodeError
            If it is damaged.
        """
        owned = msgspec.json.decode(content, type=_Owned)
        if not owned.log or owned.log != self.log:
            whose = owned.log or None
            raise IdentityError.met(
                f"the live folder of {self._pipeline!r}",
                str(file),
                log=self.log,
                whose=whose,
                since=None if whose is None else made_at(whose),
                setting="HEADWATER_HOME",
            )
        return owned.content

    def check(self, file: Path) -> None:
        """Refuse a live file of another log; a missing or damaged file passes.

        Raises
        ------
        IdentityError
            As :meth:`unwrap` does.
        """
        try:
            self.unwrap(file.read_bytes(), file)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return


class OwnedFile(PublishedFile[T]):
    """A published file of a home's pipeline, which bears the log's id: another log's is refused.

    Parameters
    ----------
    path, kind, hint
        As for :class:`~headwater.infra.store.published_file.PublishedFile`.
    home
        The pipeline's log.
    """

    def __init__(self, path: Path, kind: type[T], hint: str, home: HomeLog) -> None:
        super().__init__(path, kind, hint)
        self._home = home

    def encode(self, value: T) -> bytes:
        """Return what the file holds for a value, with the log's id."""
        return self._home.wrap(super().encode(value))

    def decode(self, content: bytes) -> T:
        """Return the value of what the file holds.

        Raises
        ------
        IdentityError
            If it was published for another log.
        msgspec.DecodeError
            If it is damaged.
        """
        return super().decode(self._home.unwrap(content, self.path))
