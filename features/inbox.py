"""Where records land first: one SQLite file a pipeline, synced before a caller hears of it."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import msgspec

from headwater.infra.commit_points import reached
from headwater.infra.sqlite import BUSY_S, prepare
from headwater.spec.errors import ConflictError, StorageError, few

__all__ = ["LABEL", "PREDICTION", "Entry", "Inbox"]

PREDICTION = 0
LABEL = 1

_CHUNK = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    position INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    id TEXT NOT NULL,
    key TEXT NOT NULL,
    received_at_us INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS entry_by_id ON entry (id, kind, key);
"""
_INSERT = """
INSERT INTO entry (kind, id, key, received_at_us, payload) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One record, as the inbox keeps it.

    Parameters
    ----------
    position
        Place in this inbox, rising from 1; 0 before it is stored.
    kind
        :data:`PREDICTION` or :data:`LABEL`.
    id
        The prediction's id.
    key
        ``""`` for a prediction; source and client's key for a label.
    received_at_us
        When it was received, in microseconds since 1970, UTC.
    payload
        The record as canonical JSON.
    """

    position: int
    kind: int
    id: str
    key: str
    received_at_us: int
    payload: bytes


class Inbox:
    """Append-only and durable; a record that comes twice is kept once.

    Parameters
    ----------
    path
        The SQLite file; made where it is missing.

    Raises
    ------
    StorageError
        If the file cannot be opened, or is not an inbox.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()  # one transaction at a time; a thread nests in its own
        with self._guarded():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            prepare(self._connection)
            self._connection.executescript(_SCHEMA)

    def append(self, entries: Iterable[Entry], name: str) -> int:
        """Store entries in one synced transaction: all of them, or none.

        Parameters
        ----------
        entries
            In the order in which they happened.
        name
            ``"record"`` or ``"label"``: whose commit points are passed.

        Returns
        -------
        int
            How many were new.

        Raises
        ------
        ConflictError
            If an id or a label's key is there with another payload; nothing is stored then.
        StorageError
            If the disk refuses; nothing is stored then.
        """
        added = 0
        with self._guarded(), self._transaction():
            rows = iter(entries)
            while chunk := list(islice(rows, _CHUNK)):
                added += self._insert(chunk)
            reached(f"{name}.before_sync")
        reached(f"{name}.after_sync")
        return added

    @contextmanager
    def one_sync(self) -> Iterator[None]:
        """Open one transaction around several appends: they are durable together, when it ends."""
        with self._guarded(), self._transaction():
            yield

    def read(self, after: int, limit: int) -> list[Entry]:
        """Give at most `limit` entries behind position `after`, in order."""
        with self._guarded(), self._lock:
            rows = self._connection.execute(
                "SELECT position, kind, id, key, received_at_us, payload FROM entry "
                "WHERE position > ? ORDER BY position LIMIT ?",
                (after, limit),
            ).fetchall()
        return [Entry(*row) for row in rows]

    def count_after(self, position: int) -> int:
        """Count the entries behind a position."""
        with self._guarded(), self._lock:
            row = self._connection.execute(
                "SELECT count(*) FROM entry WHERE position > ?", (position,)
            ).fetchone()
        return int(row[0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _insert(self, chunk: Sequence[Entry]) -> int:
        before = self._connection.total_changes
        self._connection.executemany(
            _INSERT, [(e.kind, e.id, e.key, e.received_at_us, e.payload) for e in chunk]
        )
        added = self._connection.total_changes - before
        if added < len(chunk):
            self._refuse_conflicts(chunk)
        return added

    def _refuse_conflicts(self, chunk: Sequence[Entry]) -> None:
        conflicts = []
        for entry in chunk:
            (stored,) = self._connection.execute(
                "SELECT payload FROM entry WHERE id = ? AND kind = ? AND key = ?",
                (entry.id, entry.kind, entry.key),
            ).fetchone()
            if stored != entry.payload:
                conflicts.append(entry)
        if not conflicts:
            return
        what = "predictions" if conflicts[0].kind == PREDICTION else "labels"
        raise ConflictError(
            f"{len(conflicts)} {what} came before with another payload: "
            f"{few(entry.id for entry in conflicts)}; nothing of the batch was kept",
            hint="give a new prediction its own id"
            if what == "predictions"
            else "send a changed label with another key, or with none",
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            if self._connection.in_transaction:
                yield  # part of this thread's one_sync
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(
                f"the inbox {self.path} refuses: {error}",
                hint="nothing was kept; check the disk, then send the batch again",
            ) from error
