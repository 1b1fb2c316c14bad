"""The inbox: one SQLite file a pipeline, in which records land first, synced before a call returns."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import astuple

from headwater.features.record.inbox_identity import InboxIdentity, identity_in, set_log
from headwater.infra.commit_points import reached
from headwater.infra.settings import Settings
from headwater.infra.store.sqlite import BUSY_S, prepare, together
from headwater.infra.store.turns import WriterQueue
from headwater.spec.errors import ConflictError, HeadwaterError, StorageError, few

__all__ = ["LABEL", "PREDICTION", "Entry", "Inbox", "InboxRow", "inbox_file"]

PREDICTION = 0
LABEL = 1

InboxRow = tuple[int, int, str, int, bytes]
"""Position, kind, id, time of receipt in microseconds, payload."""

_SCHEMA = (
    """
CREATE TABLE entry (
    position INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    id TEXT NOT NULL,
    key TEXT NOT NULL,
    received_at_us INTEGER NOT NULL,
    payload BLOB NOT NULL
)
""",
    "CREATE UNIQUE INDEX entry_by_id ON entry (id, kind, key)",
)
_INSERT = "INSERT INTO entry (kind, id, key, received_at_us, payload) VALUES"
_ROW = "(?, ?, ?, ?, ?)"
_ONCE = "ON CONFLICT DO NOTHING"
_ONE_STATEMENT = 64  # each number of rows is a statement, kept with the values that it had last


def inbox_file(pipeline: str, settings: Settings) -> Path:
    """Return the file of a pipeline's inbox, below the home folder; it may not be there yet."""
    return settings.root / "inbox" / f"{pipeline}.sqlite"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One record, as the inbox keeps it; storing it gives it a position, rising from 1.

    Parameters
    ----------
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

    kind: int
    id: str
    key: str
    received_at_us: int
    payload: bytes


class Inbox:
    """The append-only, durable inbox; a record that comes twice is kept once.

    Parameters
    ----------
    path
        The SQLite file; made if it is missing.

    Raises
    ------
    StorageError
        If the file cannot be opened, or is not an inbox.
    IdentityError
        If it was made before inboxes had ids.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            prepare(self._connection)
            self._identity = self._identified()
            self._turns = WriterQueue(path)
        except (sqlite3.Error, OSError) as error:
            raise self._refused(error) from error
        self._transaction = _Transaction(self._connection, self._turns)
        self._copying: sqlite3.Connection | None = None

    @property
    def id(self) -> str:
        """The UUID of the file."""
        return self._identity.inbox

    @property
    def log(self) -> str | None:
        """The log that the inbox belongs to, as it was when the file was opened; None for none yet."""
        return self._identity.log

    def belong_to(self, log: str) -> None:
        """Store the log that the inbox belongs to, unless it belongs to one already.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        if self.log is not None:
            return
        try:
            with self._transaction:
                self._identity = set_log(self._connection, log)
        except (sqlite3.Error, OSError) as error:
            raise self._refused(error) from error

    def append(self, entries: Sequence[Entry], name: str) -> int:
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
        try:
            with self._transaction:
                added = self._insert(entries)
                reached(f"{name}.before_sync")
        except (sqlite3.Error, OSError) as error:
            raise self._refused(error) from error
        reached(f"{name}.after_sync")
        return added

    def append_each(self, batches: Sequence[Sequence[Entry]]) -> list[int | ConflictError]:
        """Store batches in one synced transaction, each batch whole or not at all.

        Parameters
        ----------
        batches
            In the order in which they came.

        Returns
        -------
        list of int or ConflictError
            For each batch, how many of its entries were new, or why it was refused.

        Raises
        ------
        StorageError
            If the disk refuses; nothing of any batch is stored then.
        """
        try:
            ended = self._at_once(batches)
            if ended is None:
                with self._transaction:
                    ended = self._try_each(batches)
                    reached("record.before_sync")
        except (sqlite3.Error, OSError) as error:
            raise self._refused(error) from error
        reached("record.after_sync")
        return ended

    def _at_once(self, batches: Sequence[Sequence[Entry]]) -> list[int | ConflictError] | None:
        """Store all batches without look-ups; return None, and store nothing, if a record came twice.

        A statement is a transaction of its own: the interpreter's lock is given up and taken back once,
        and not for each part of a transaction.
        """
        rows = [astuple(entry) for batch in batches for entry in batch]
        reached("record.before_sync")
        with suppress(sqlite3.IntegrityError):
            if 0 < len(rows) <= _ONE_STATEMENT:
                with self._transaction.lock, self._turns:
                    values = list(chain.from_iterable(rows))
                    self._connection.execute(f"{_INSERT} {', '.join([_ROW] * len(rows))}", values)
            else:
                with self._transaction:
                    for statement, some in together(_INSERT, _ROW, rows):
                        self._connection.executemany(statement, some)
            return [len(batch) for batch in batches]
        return None

    def _try_each(self, batches: Sequence[Sequence[Entry]]) -> list[int | ConflictError]:
        ended: list[int | ConflictError] = []
        for batch in batches:
            self._connection.execute("SAVEPOINT batch")
            try:
                ended.append(self._insert(batch))
            except ConflictError as error:
                self._connection.execute("ROLLBACK TO batch")
                ended.append(error)
            self._connection.execute("RELEASE batch")
        return ended

    def _insert(self, entries: Sequence[Entry]) -> int:
        added = self._added(entries)
        if added < len(entries):
            self._refuse_conflicts(entries)
        return added

    def _added(self, entries: Sequence[Entry]) -> int:
        rows = list(map(astuple, entries))
        before = self._connection.total_changes
        for statement, values in together(_INSERT, _ROW, rows, _ONCE):
            self._connection.executemany(statement, values)
        return self._connection.total_changes - before

    @contextmanager
    def one_sync(self) -> Iterator[None]:
        """Open one transaction around several appends, which are durable together when it ends.

        An error within keeps none of them, also where the caller passes over it.
        """
        try:
            with self._transaction:
                yield
        except (sqlite3.Error, OSError) as error:
            raise self._refused(error) from error

    def read(self, after: int, limit: int) -> list[InboxRow]:
        """Return at most `limit` entries behind position `after`, in order."""
        return self._select(
            "SELECT position, kind, id, received_at_us, payload FROM entry "
            "WHERE position > ? ORDER BY position LIMIT ?",
            (after, limit),
        )

    def entries_of(self, id_: str) -> list[tuple[int, int, bytes]]:
        """Return the entries of a prediction's id, in order: kind, time of receipt, payload."""
        return self._select(
            "SELECT kind, received_at_us, payload FROM entry WHERE id = ? ORDER BY position", (id_,)
        )

    def count_after(self, position: int) -> int:
        """Count the entries behind a position."""
        ((count,),) = self._select("SELECT count(*) FROM entry WHERE position > ?", (position,))
        return int(count)

    def end(self) -> int:
        """Return the position of the newest entry; 0 if there is none."""
        ((position,),) = self._select("SELECT coalesce(max(position), 0) FROM entry", ())
        return int(position)

    def copy_log(self) -> None:
        """Copy SQLite's write-ahead log into the file, while others write.

        SQLite does so within a commit once the log is long, and every caller waits for it; what was
        copied here before is not copied then. From one thread at a time.

        Raises
        ------
        StorageError
            If the disk refuses; the log keeps what it holds.
        """
        try:
            if self._copying is None:
                self._copying = sqlite3.connect(self.path, timeout=BUSY_S, check_same_thread=False)
            self._copying.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except (sqlite3.Error, OSError) as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Close the file."""
        if self._copying is not None:
            self._copying.close()
        self._connection.close()
        self._turns.close()

    def _identified(self) -> InboxIdentity:
        try:
            return identity_in(self._connection, self.path, _SCHEMA)
        except HeadwaterError:
            self._connection.close()
            raise

    def _select(self, statement: str, values: tuple[int | str, ...]) -> list[tuple[Any, ...]]:
        try:
            with self._transaction.lock:
                return self._connection.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            raise self._refused(error) from error

    def _refuse_conflicts(self, entries: Sequence[Entry]) -> None:
        conflicts = []
        for entry in entries:
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

    def _refused(self, error: Exception) -> StorageError:
        return StorageError(
            f"the inbox {self.path} refuses: {error}",
            hint="nothing was kept; check the disk, then send the batch again",
        )


class _Transaction:
    """One transaction at a time; a nested one belongs to the outer one, and its error fails both."""

    def __init__(self, connection: sqlite3.Connection, turns: WriterQueue) -> None:
        self.lock = threading.RLock()
        self._connection = connection
        self._turns = turns
        self._turn = ExitStack()
        self._depth = 0
        self._failed = False

    def __enter__(self) -> None:
        self.lock.acquire()
        try:
            if self._depth == 0:
                self._begin()
        except BaseException:
            self.lock.release()
            raise
        self._depth += 1

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._failed = self._failed or error is not None
        self._depth -= 1
        try:
            if self._depth == 0:
                with self._turn:
                    self._end(passed_over=self._failed and error is None)
        finally:
            self.lock.release()

    def _begin(self) -> None:
        with ExitStack() as turn:
            turn.enter_context(self._turns)
            self._connection.execute("BEGIN IMMEDIATE")
            self._turn = turn.pop_all()
        self._failed = False

    def _end(self, *, passed_over: bool) -> None:
        if not self._failed:
            try:
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            return
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if passed_over:
            raise StorageError(
                "one_sync keeps nothing: a batch within was refused, and the error was passed over",
                hint="let the error out of the block, then send all of it again without that batch",
            )
