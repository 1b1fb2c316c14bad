"""Reading of an inbox: its own file and the imported ones, as they are at one moment."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import NamedTuple

from headwater.features.record.entries import (
    Entry,
    InboxRow,
    StoredRow,
    conflicts_among,
    known_payloads,
    refuse,
)
from headwater.features.record.imported_files import ImportedFiles
from headwater.infra.clock import Clock, ReceiptClock
from headwater.spec.data.checksum import entry_checksum, entry_checksums, payload_crc
from headwater.spec.errors import DamagedError, StorageError, spans_of

__all__ = [
    "STAND_IN",
    "InboxReader",
    "ScannedEntries",
    "damaged_at",
    "is_whole",
    "lost_entries",
    "refused",
    "stands_in",
]

_NO_END = 2**63 - 1
_AT_ONCE = 5_000
_STORED = "position, kind, id, received_at_us, payload, key, checksum, declaration"
_DAMAGED = sqlite3.SQLITE_CORRUPT  # Python gives no code where a text is not UTF-8


def _crcs_of(rows: Sequence[StoredRow]) -> list[int] | None:
    """Return the CRCs of the payloads of rows; None unless all are whole, and have a checksum."""
    try:
        crcs = [payload_crc(row[4]) for row in rows]
        sums = entry_checksums(rows, crcs)
    except TypeError:  # the damage is in a value's type
        return None
    return crcs if sums == [row[6] for row in rows] else None


def is_whole(row: StoredRow) -> bool:
    """Return whether a row is what was stored, by its checksum."""
    _, kind, id_, us, payload, key, checksum, declaration = row
    try:
        crc = payload_crc(payload)
        return checksum is None or entry_checksum(kind, id_, key, us, crc, declaration) == checksum
    except TypeError:  # the damage is in a value's type
        return False


STAND_IN = b"", -1
"""Payload and checksum of what stands in the place of the newest entry if that is lost."""


def stands_in(row: StoredRow) -> bool:
    """Return whether a row only keeps its position from being given again."""
    return (row[4], row[6]) == STAND_IN


class ScannedEntries(NamedTuple):
    """Entries of an inbox, the positions of those that are damaged, and the last position looked at.

    The entries are whole: `crcs` are those of their payloads.
    """

    entries: list[StoredRow]
    crcs: list[int]
    damaged: tuple[int, ...]
    stop: int

    def read_to(self, count: int) -> int:
        """Return the last position before the first entry that is not among the first `count`."""
        return self.stop if count == len(self.entries) else self.entries[count][0] - 1


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

    def forget_pages(self) -> None:
        """Read the file again from now on, and not the pages that were read of it before."""
        with self._reading():
            self._connection.execute("PRAGMA shrink_memory")

    def read(self, after: int, limit: int) -> list[InboxRow]:
        """Return the entries behind position `after`, in order, without damaged ones.

        Look at `limit` entries at most.
        """
        return [row[:5] for row in self.scan(after, limit).entries]

    def scan(self, after: int, limit: int) -> ScannedEntries:
        """Return the entries behind position `after`, and the positions of damaged ones.

        Positions rise by one: one that is not there is damaged, too.

        Parameters
        ----------
        after, limit
            How many to look at, at most, behind which position.
        """
        with self._reading():
            try:
                stored = self._stored(after, limit)
                stop = max(after, stored[-1][0]) if stored else after
            except sqlite3.DatabaseError as error:
                if (getattr(error, "sqlite_errorcode", None) or _DAMAGED) & 0xFF != _DAMAGED:
                    raise
                stop = min(self._end(), after + limit)
                stored = self._one_by_one(after, stop)
        crcs = _crcs_of(stored) if len(stored) == stop - after else None
        if crcs is not None:  # nearly always
            return ScannedEntries(stored, crcs, (), stop)
        whole = [row for row in stored if is_whole(row)]
        there = {row[0] for row in whole}
        damaged = tuple(position for position in range(after + 1, stop + 1) if position not in there)
        return ScannedEntries(whole, [payload_crc(row[4]) for row in whole], damaged, stop)

    def _stored(self, after: int, limit: int) -> list[StoredRow]:
        found: list[StoredRow] = []
        while len(found) < limit:
            file = self._imported.following(after)
            stop = _NO_END if file is None else file.first
            found += self._connection.execute(
                f"SELECT {_STORED} FROM entry "  # noqa: S608 - ours
                "WHERE position > ? AND position < ? ORDER BY position LIMIT ?",
                (after, stop, limit - len(found)),
            ).fetchall()
            if file is None or len(found) >= limit:
                break
            found += file.read(max(after, file.first - 1), limit - len(found))
            after = max(after, file.last - 1)
        return found

    def _one_by_one(self, after: int, stop: int) -> list[StoredRow]:
        """Read around a damaged page: what cannot be read is left out."""
        found: list[StoredRow] = []
        for position in range(after, stop):
            with suppress(sqlite3.DatabaseError):
                found += [row for row in self._stored(position, 1) if row[0] == position + 1]
        return found

    def entries_of(self, id_: str) -> list[tuple[int, int, bytes, int | None]]:
        """Return the entries of a prediction's id, in order: kind, time of receipt, payload, hash.

        Raises
        ------
        DamagedError
            If one is damaged.
        """
        with self._reading():
            found: list[StoredRow] = self._connection.execute(
                f"SELECT {_STORED} FROM entry WHERE id = ?",  # noqa: S608 - ours
                (id_,),
            ).fetchall()
            for file in self._imported:
                found += file.of(id_)
        damaged = [row[0] for row in found if not is_whole(row)]
        if damaged:
            raise damaged_at(self.path, damaged)
        return [(row[1], row[3], row[4], row[7]) for row in sorted(found)]

    def damaged_row(self, position: int) -> StoredRow | None:
        """Return an entry of the own file as it stands, damaged or not; None if there is none.

        Raises
        ------
        StorageError
            If it lies in a damaged page.
        """
        with self._reading():
            row: StoredRow | None = self._connection.execute(
                f"SELECT {_STORED} FROM entry WHERE position = ?",  # noqa: S608 - ours
                (position,),
            ).fetchone()
        return row

    def count_after(self, position: int) -> int:
        """Count the entries behind a position."""
        with self._reading():
            statement = "SELECT count(*) FROM entry WHERE position > ?"
            ((count,),) = self._connection.execute(statement, (position,)).fetchall()
            return int(count) + self._imported.count_after(position)

    def end(self) -> int:
        """Return the position of the newest entry; 0 if there is none."""
        with self._reading():
            return self._end()

    def _end(self) -> int:
        statement = "SELECT coalesce(max(position), 0) FROM entry"
        ((position,),) = self._connection.execute(statement).fetchall()
        return int(position)

    def receipt_clock(self, clock: Clock) -> ReceiptClock:
        """Return a clock for times of receipt, which holds another against the newest entry's."""
        row = None
        with suppress(StorageError), self._reading():  # a damaged page is found by whoever reads it
            statement = "SELECT received_at_us FROM entry ORDER BY position DESC LIMIT 1"
            row = self._connection.execute(statement).fetchone()
        return ReceiptClock(clock, self.path.parent, 0 if row is None else int(row[0]))

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

    def declaration(self, hash_: int) -> str | None:
        """Return what entries were recorded under, as JSON, by the hash that they bear."""
        with self._reading():
            row = self._connection.execute(
                "SELECT content FROM declaration WHERE hash = ?", (hash_,)
            ).fetchone()
        return None if row is None else str(row[0])

    def behind(self, position: int) -> list[tuple[int, int, str, str, int, bytes, int | None]]:
        """Return some of the records of the own file behind a position, with their keys."""
        with self._reading():
            return self._connection.execute(
                "SELECT position, kind, id, key, received_at_us, payload, declaration FROM entry "
                "WHERE position > ? ORDER BY position LIMIT ?",
                (position, _AT_ONCE),
            ).fetchall()

    def _end_reading(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.DatabaseError:  # a statement that met a damaged page makes it fail
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

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
                    self._end_reading()
        except (sqlite3.Error, OSError) as error:
            raise refused(self.path, error) from error


def damaged_at(path: Path, positions: Sequence[int]) -> DamagedError:
    """Return the error of damaged entries of an inbox."""
    return DamagedError(
        f"the inbox {path} is damaged at the positions {spans_of(positions)}",
        hint="mend it from the database: headwater doctor --repair",
        places=positions,
    )


def lost_entries(path: Path, positions: Sequence[int]) -> DamagedError:
    """Return the error of entries that were damaged before the database had read them."""
    return DamagedError(
        f"{len(positions)} records of the inbox {path} are lost: they were damaged, at the positions "
        f"{spans_of(positions)}, before they were sequenced; the others go on",
        hint="check the disk; record them again if their senders have them",
        places=positions,
    )


def refused(path: Path, error: Exception) -> StorageError:
    """Return the error of an inbox whose disk refuses."""
    return StorageError(
        f"the inbox {path} refuses: {error}",
        hint="nothing was kept; check the disk, then send the batch again",
    )
