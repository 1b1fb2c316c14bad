"""History on its way into an inbox: written aside, sorted on disk, and kept at once or not at all."""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from headwater.features.record.entries import (
    LABEL,
    PREDICTION,
    SCHEMA,
    Entry,
    insert_all,
    known_payloads,
    refuse,
    rows_of,
)
from headwater.features.record.imported_files import folder_of
from headwater.features.record.inbox import Inbox
from headwater.infra.commit_points import reached
from headwater.infra.ids import new_id
from headwater.spec.errors import BusyError, ConflictError, StorageError, few

__all__ = ["ImportCounts", "ImportDraft", "drafting"]

_FEW = 10_000
"""So many records are recorded as others are: within 50 ms of the inbox's lock."""

_TICKS = 100_000
_LIGHT = (
    "PRAGMA page_size = 16384",
    "PRAGMA cache_size = -32000",
    "PRAGMA main.journal_mode = MEMORY",
    "PRAGMA main.synchronous = OFF",
    "PRAGMA raw.journal_mode = OFF",
    "PRAGMA raw.synchronous = OFF",
)
"""A file that is not whole is never used: it is synced once, before it is published."""

_RAW = SCHEMA[0].replace("TABLE entry", "TABLE raw.entry")
_SORTED = """
INSERT INTO main.entry (kind, id, key, received_at_us, payload, checksum, declaration)
SELECT kind, id, key, received_at_us, payload, checksum, declaration FROM raw.entry
ORDER BY received_at_us, kind, position
"""
_TWICE = """
SELECT kind, id, key, received_at_us, payload, declaration FROM raw.entry
GROUP BY id, kind, key HAVING min(payload) <> max(payload)
"""
_FROM = (
    "SELECT kind, id, key, received_at_us, payload, declaration FROM entry WHERE position >= ? "
    "ORDER BY position"
)
_FIRST_OF_EACH = """
DELETE FROM raw.entry
WHERE position NOT IN (SELECT min(position) FROM raw.entry GROUP BY id, kind, key)
"""


class ImportCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The records of an import.

    Parameters
    ----------
    predictions, labels
        Those that are new.
    predictions_known, labels_known
        Those left out, since they were recorded before with the same payload, or come again.
    """

    predictions: int
    labels: int
    predictions_known: int
    labels_known: int


class ImportDraft:
    """Records that will be imported together. Made by :func:`drafting`.

    Parameters
    ----------
    inbox
        Where they will be imported.
    path
        The file that they are written to, beside the inbox; of no effect before :meth:`publish`.
    told
        Called many times a second while records are sorted; it may raise, to stop it.
    """

    def __init__(self, inbox: Inbox, path: Path, told: Callable[[], None]) -> None:
        self.published = False
        self._inbox = inbox
        self._path = path
        self._raw = path.with_suffix(".raw")
        self._added = {PREDICTION: 0, LABEL: 0}
        self._checked_to = inbox.end()
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("ATTACH ? AS raw", (str(self._raw),))
        for statement in _LIGHT:
            self._connection.execute(statement)
        self._connection.set_progress_handler(told, _TICKS)
        self._connection.execute(_RAW)
        self._connection.execute("BEGIN")

    def add(self, entries: Sequence[Entry]) -> None:
        """Add records, in the order of the table.

        Raises
        ------
        ConflictError
            If one was recorded before with another payload.
        """
        for entry in entries:
            self._added[entry.kind] += 1
        unknown = self._inbox.unknown(entries) if self._checked_to else entries
        insert_all(self._connection, rows_of(unknown), "raw.entry")

    def settle(self) -> ImportCounts:
        """Sort the records by their times, and keep once what comes twice; called once, at the end.

        Raises
        ------
        ConflictError
            If an id or a label's key comes twice with different payloads.
        """
        connection = self._connection
        connection.execute("COMMIT")
        if not self._sort():
            refuse([Entry(*row) for row in connection.execute(_TWICE)])
            connection.execute(_FIRST_OF_EACH)
            self._sort()
        connection.execute("DETACH raw")
        self._raw.unlink()
        kept = dict(connection.execute("SELECT kind, count(*) FROM entry GROUP BY kind").fetchall())
        predictions, labels = kept.get(PREDICTION, 0), kept.get(LABEL, 0)
        return ImportCounts(
            predictions=predictions,
            labels=labels,
            predictions_known=self._added[PREDICTION] - predictions,
            labels_known=self._added[LABEL] - labels,
        )

    def publish(self) -> int:
        """Import the records; durable when this returns. Return how many are new.

        Raises
        ------
        ConflictError
            If one of them was recorded since it was added.
        StorageError
            If the disk refuses; nothing is imported then.
        """
        ((count,),) = self._connection.execute("SELECT count(*) FROM entry").fetchall()
        if count <= _FEW:
            return self._inbox.append(self._entries(1), "record")
        (last,) = self._entries(count)
        self._connection.execute("DELETE FROM entry WHERE position = ?", (count,))
        for path in (self._path, self._path.parent):
            _sync(path)
        position = self._check_apart(self._checked_to, last)  # most of it without holding up others
        with self._inbox.one_sync():
            self._check_apart(position, last)
            self._inbox.adopt(self._path.name, count, last)
            reached("record.before_sync")
        self.published = True
        reached("record.after_sync")
        return int(count)

    def discard(self) -> None:
        """Close the draft, and delete what was not published."""
        self._connection.close()
        self._raw.unlink(missing_ok=True)
        if not self.published:
            self._path.unlink(missing_ok=True)

    def _check_apart(self, position: int, last: Entry) -> int:
        """Check that nothing behind a position of the inbox is of the import; return the end."""
        while rows := self._inbox.behind(position):
            entries = [Entry(*row[1:]) for row in rows]
            known = {*known_payloads(self._connection, entries), last.identity}
            if came := [entry.id for entry in entries if entry.identity in known]:
                raise ConflictError(
                    f"{len(came)} records of the import were recorded meanwhile: {few(came)}; nothing "
                    "was imported",
                    hint="import again: what was recorded with the same payload is left out",
                )
            position = rows[-1][0]
        return position

    def _sort(self) -> bool:
        """Sort the records into the file; return False where one comes twice."""
        self._connection.execute("DROP TABLE IF EXISTS main.entry")
        self._connection.execute(SCHEMA[0])
        self._connection.execute(_SORTED)
        try:
            self._connection.execute(SCHEMA[1])
        except sqlite3.IntegrityError:
            return False
        return True

    def _entries(self, start: int) -> list[Entry]:
        """Return the sorted records from a position on."""
        return [Entry(*row) for row in self._connection.execute(_FROM, (start,))]


@contextmanager
def drafting(inbox: Inbox, told: Callable[[], None]) -> Iterator[ImportDraft]:
    """Open a draft, and delete at the end what was not published.

    Parameters
    ----------
    inbox, told
        As for :class:`ImportDraft`.

    Raises
    ------
    BusyError
        If another process imports into the same inbox.
    StorageError
        If the disk refuses.
    """
    folder = folder_of(inbox.path)
    try:
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("ab") as lock:
            _lock(lock, inbox.path.stem)
            _remove_strays(folder, inbox.imported())
            draft = ImportDraft(inbox, folder / f"{new_id()}.sqlite", told)
            try:
                yield draft
            finally:
                draft.discard()
    except (sqlite3.Error, OSError) as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from error  # it was raised where SQLite looks, and passed over there
        raise StorageError(
            f"an import into {inbox.path} cannot be written: {error}",
            hint="nothing was kept; free twice the disk that the history takes, and import again",
        ) from error


def _lock(lock: IO[bytes], pipeline: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(
            f"another process imports history of {pipeline!r}", hint="wait until it ended, then import"
        ) from error


def _remove_strays(folder: Path, imported: Sequence[str]) -> None:
    """Remove what killed imports left, while no other one is at work."""
    for path in folder.iterdir():
        if path.name != "lock" and path.name not in imported:
            path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
