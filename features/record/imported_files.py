"""The imported files of an inbox: each holds a range of the inbox's positions, and never changes.

An import of many records is written to a file of its own, beside the inbox, and becomes visible by one
row of the inbox's file, in one short transaction. It takes the positions that come next, so that what
was recorded before stays before it and what is recorded afterwards comes after it. Its last record
stands in the inbox's own file: SQLite counts on from there.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from headwater.features.record.entries import (
    Entry,
    StoredRow,
    conflicts_among,
    has_any,
    known_payloads,
    newest_of_source,
    refuse,
)
from headwater.spec.errors import IntegrityError

__all__ = ["IMPORTED", "ImportedFile", "ImportedFiles", "folder_of", "missing_columns"]

IMPORTED = """
CREATE TABLE IF NOT EXISTS imported (
    file TEXT NOT NULL PRIMARY KEY,
    first_position INTEGER NOT NULL,
    last_position INTEGER NOT NULL
)
"""
"""A row a file; the record at the last position stands in the inbox's own file."""

_SINCE = ("checksum", "declaration")

_COUNT = """
SELECT coalesce(sum(max(0, last_position - max(first_position, ? + 1))), 0) FROM imported
"""


def missing_columns(connection: sqlite3.Connection) -> list[str]:
    """Return the columns that a file's entries lack, which was made before they were there."""
    columns = connection.execute("SELECT name FROM pragma_table_info('entry')").fetchall()
    return [name for name in _SINCE if (name,) not in columns]


def folder_of(inbox: Path) -> Path:
    """Return the folder of an inbox's imported files; it need not be there."""
    return inbox.with_suffix(".imported")


class ImportedFile(NamedTuple):
    """The range of positions that a file holds, and its open connection."""

    first: int
    last: int
    connection: sqlite3.Connection

    def read(self, after: int, limit: int) -> list[StoredRow]:
        """Return at most `limit` records behind a position of the inbox, with their positions there."""
        before = self.first - 1
        values = (before, after - before, limit)
        return self._select("WHERE position > ? ORDER BY position LIMIT ?", values)

    def of(self, id_: str) -> list[StoredRow]:
        """Return the records of a prediction's id."""
        return self._select("WHERE id = ?", (self.first - 1, id_))

    def _select(self, where: str, values: tuple[object, ...]) -> list[StoredRow]:
        missing = missing_columns(self.connection)
        newer = ", ".join("NULL" if name in missing else name for name in _SINCE)
        columns = f"position + ?, kind, id, received_at_us, payload, key, {newer}"
        statement = f"SELECT {columns} FROM entry {where}"  # noqa: S608 - ours
        return self.connection.execute(statement, values).fetchall()


class ImportedFiles:
    """The imported files of one inbox, as its transaction sees them.

    Used under the lock of the inbox's connection, within a transaction: the list of files and what the
    inbox's own file holds must be of one moment.

    Parameters
    ----------
    connection, path
        Of the inbox's own file.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._folder = folder_of(path)
        self._opened: dict[str, ImportedFile] = {}

    def __iter__(self) -> Iterator[ImportedFile]:
        """Yield the files, by their positions.

        Raises
        ------
        IntegrityError
            If one is not there.
        """
        for name, first, last in self._connection.execute(
            "SELECT file, first_position, last_position FROM imported ORDER BY first_position"
        ).fetchall():
            if name not in self._opened:
                self._opened[name] = ImportedFile(first, last, self._open(name))
            yield self._opened[name]

    def following(self, position: int) -> ImportedFile | None:
        """Return the first file that holds a record behind a position; None if none does."""
        return next((one for one in self if one.last - 1 > position), None)

    def count_after(self, position: int) -> int:
        """Count the records of files behind a position."""
        ((count,),) = self._connection.execute(_COUNT, (position,))
        return int(count)

    def unknown(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return the entries that no file holds.

        Raises
        ------
        ConflictError
            If a file holds one with another payload.
        """
        for one in self:
            known = known_payloads(one.connection, entries)
            if known:
                refuse(conflicts_among(entries, known))
                entries = [entry for entry in entries if entry.identity not in known]
        return entries

    def newest_of_source(self, label: Entry) -> tuple[int, bytes] | None:
        """Return position and payload of the newest label of a label's prediction and source."""
        for one in reversed(list(self)):
            found = newest_of_source(one.connection, label)
            if found is not None:
                return one.first - 1 + found[0], found[1]
        return None

    @property
    def are_known(self) -> bool:
        """Whether a file was opened: once there is one, there always is."""
        return bool(self._opened)

    def hold_any(self, ids: Sequence[str]) -> bool:
        """Return whether a file holds a record of one of some predictions."""
        return any(has_any(one.connection, ids) for one in self)

    def close(self) -> None:
        """Close the files."""
        for one in self._opened.values():
            one.connection.close()

    def _open(self, name: str) -> sqlite3.Connection:
        path = self._folder / name
        if not path.is_file():
            raise IntegrityError(
                f"the imported records {path} are missing, and the inbox beside them counts on them",
                hint="restore the whole folder 'inbox' from one backup",
            )
        address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
