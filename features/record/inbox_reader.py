"""Reading of an inbox: its own file and the imported ones, as they are at one moment."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

from headwater.features.record.entries import (
    Entry,
    InboxRow,
    conflicts_among,
    known_payloads,
    refuse,
)
from headwater.features.record.imported_files import ImportedFiles
from headwater.spec.errors import StorageError

__all__ = ["InboxReader", "refused"]

_NO_END = 2**63 - 1
_AT_ONCE = 5_000


class InboxReader:
    """The records of an inbox, by position or id.

    Parameters
    ----------
    path, connection
        Of the inbox's own file.
    lock
        Held by whoever uses the connection.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: RLock) -> None:
        self.path = path
        self._connection = connection
        self._imported = ImportedFiles(connection, path)
        self._lock = lock

    def read(self, after: int, limit: int) -> list[InboxRow]:
        """Return at most `limit` entries behind position `after`, in order."""
        found: list[InboxRow] = []
        with self._reading():
            while len(found) < limit:
                file = self._imported.following(after)
                stop = _NO_END if file is None else file.first
                found += self._connection.execute(
                    "SELECT position, kind, id, received_at_us, payload FROM entry "
                    "WHERE position > ? AND position < ? ORDER BY position LIMIT ?",
                    (after, stop, limit - len(found)),
                ).fetchall()
                if file is None or len(found) >= limit:
                    break
                found += file.read(max(after, file.first - 1), limit - len(found))
                after = found[-1][0]
        return found

    def entries_of(self, id_: str) -> list[tuple[int, int, bytes]]:
        """Return the entries of a prediction's id, in order: kind, time of receipt, payload."""
        with self._reading():
            found: list[tuple[int, int, int, bytes]] = self._connection.execute(
                "SELECT position, kind, received_at_us, payload FROM entry WHERE id = ?", (id_,)
            ).fetchall()
            for file in self._imported:
                found += file.of(id_)
        return [(kind, received_at_us, payload) for _, kind, received_at_us, payload in sorted(found)]

    def count_after(self, position: int) -> int:
        """Count the entries behind a position."""
        with self._reading():
            statement = "SELECT count(*) FROM entry WHERE position > ?"
            ((count,),) = self._connection.execute(statement, (position,)).fetchall()
            return int(count) + self._imported.count_after(position)

    def end(self) -> int:
        """Return the position of the newest entry; 0 if there is none."""
        with self._reading():
            statement = "SELECT coalesce(max(position), 0) FROM entry"
            ((position,),) = self._connection.execute(statement).fetchall()
        return int(position)

    def unknown(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return the entries that are not there.

        Raises
        ------
        ConflictError
            If one is there with another payload.
        """
        with self._reading():
            known = known_payloads(self._connection, entries)
            refuse(conflicts_among(entries, known))
            new = [entry for entry in entries if entry.identity not in known]
            return self._imported.unknown(new)

    def imported(self) -> list[str]:
        """Return the names of the imported files."""
        with self._reading():
            return [name for (name,) in self._connection.execute("SELECT file FROM imported")]

    def behind(self, position: int) -> list[tuple[int, int, str, str, int, bytes]]:
        """Return some of the records of the own file behind a position, with their keys."""
        with self._reading():
            return self._connection.execute(
                "SELECT position, kind, id, key, received_at_us, payload FROM entry "
                "WHERE position > ? ORDER BY position LIMIT ?",
                (position, _AT_ONCE),
            ).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """See the own file and the list of imported ones as they are at one moment."""
        try:
            with self._lock:
                if self._connection.in_transaction:
                    yield
                    return
                self._connection.execute("BEGIN")
                try:
                    yield
                finally:
                    self._connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise refused(self.path, error) from error


def refused(path: Path, error: Exception) -> StorageError:
    """Return the error of an inbox whose disk refuses."""
    return StorageError(
        f"the inbox {path} refuses: {error}",
        hint="nothing was kept; check the disk, then send the batch again",
    )
