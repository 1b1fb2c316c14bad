"""The inbox: one SQLite file a pipeline, in which records land first, synced before a call returns."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from headwater.features.record.entries import (
    DECLARATION,
    ONE_STATEMENT,
    SCHEMA,
    Entry,
    any_unkeyed,
    insert,
    insert_all,
    insert_each,
    insert_new,
    rows_of,
)
from headwater.features.record.imported_files import IMPORTED, missing_columns
from headwater.features.record.inbox_identity import InboxIdentity, identity_in, set_log
from headwater.features.record.inbox_reader import refused
from headwater.features.record.inbox_transaction import InboxTransaction
from headwater.features.record.kept_inbox import KeptInbox
from headwater.infra.commit_points import reached
from headwater.infra.settings import Settings
from headwater.infra.store.end_mark import EndMark
from headwater.infra.store.sqlite import BUSY_S, prepare
from headwater.infra.store.turns import WriterQueue, present
from headwater.spec.errors import ConflictError

__all__ = ["Inbox", "inbox_file"]


def inbox_file(pipeline: str, settings: Settings) -> Path:
    """Return the file of a pipeline's inbox, below the home folder; it may not be there yet."""
    return settings.root / "inbox" / f"{pipeline}.sqlite"


class Inbox(KeptInbox):
    """The append-only, durable inbox; a record that comes twice is kept once.

    Parameters
    ----------
    path
        The SQLite file; made if it is missing.

    Raises
    ------
    StorageError
        If the file cannot be opened, or is not an inbox.
    IdentityError, BusyError
        If it was made before inboxes had ids; if a command such as a deletion has it to itself.

    Attributes
    ----------
    identity
        The UUID of the file, and the log that it belonged to when it was opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._present, connection, self.identity = _opened(path)
            self._turns = WriterQueue(path)
            self._mark = EndMark(path, self.identity.inbox)
        except (sqlite3.Error, OSError) as error:
            raise refused(path, error) from error
        self._transaction = InboxTransaction(connection, self._turns, self._move_mark)
        super().__init__(path, connection, self._transaction)
        self._copying: sqlite3.Connection | None = None

    def belong_to(self, log: str) -> None:
        """Store the log that the inbox belongs to, unless it belongs to one already.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        if self.identity.log is not None:
            return
        try:
            with self._transaction:
                self.identity = set_log(self._connection, log)
        except (sqlite3.Error, OSError) as error:
            raise refused(self.path, error) from error

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
                added = insert(self._connection, entries, self._imported)
                reached(f"{name}.before_sync")
        except (sqlite3.Error, OSError) as error:
            raise refused(self.path, error) from error
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
            ended = None if any_unkeyed(batches) else self._at_once(batches)
            if ended is None:
                with self._transaction:
                    ended = insert_each(self._connection, batches, self._imported)
                    reached("record.before_sync")
        except (sqlite3.Error, OSError) as error:
            raise refused(self.path, error) from error
        reached("record.after_sync")
        return ended

    def _at_once(self, batches: Sequence[Sequence[Entry]]) -> list[int | ConflictError] | None:
        """Store all batches without a look-up of each; store nothing, and return None, if one is there.

        A statement is a transaction of its own: the interpreter's lock is given up and taken back once,
        and not for each part of a transaction.
        """
        entries = [entry for batch in batches for entry in batch]
        rows = rows_of(entries)
        counts: list[int | ConflictError] = [len(batch) for batch in batches]
        reached("record.before_sync")
        with suppress(sqlite3.IntegrityError):
            if 0 < len(rows) <= ONE_STATEMENT and not self._imported.are_known:
                with self._transaction.lock, self._turns:
                    if insert_new(self._connection, rows):
                        self._move_mark()
                        return counts
            with self._transaction:
                if not self._imported.hold_any([entry.id for entry in entries]):
                    insert_all(self._connection, rows)
                    return counts
        return None

    def adopt(self, name: str, count: int, last: Entry) -> None:
        """Take over an imported file, at the positions that come next; within :meth:`one_sync`.

        Parameters
        ----------
        name
            Its name in the folder of imported files, where it is synced.
        count, last
            How many records are imported, and the last one of them, which the file does not hold.
        """
        first, stop = self.end() + 1, self.end() + count
        self._connection.execute("INSERT INTO imported VALUES (?, ?, ?)", (name, first, stop))
        (row,) = rows_of([last])
        self._connection.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (stop, *row))

    @contextmanager
    def one_sync(self) -> Iterator[None]:
        """Open one transaction around several appends, which are durable together when it ends.

        An error within keeps none of them, also where the caller passes over it.
        """
        try:
            with self._transaction:
                yield
        except (sqlite3.Error, OSError) as error:
            raise refused(self.path, error) from error

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
            raise refused(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        if self._copying is not None:
            self._copying.close()
        self._imported.close()
        self._connection.close()
        self._turns.close()
        self._mark.close()
        self._present.close()


def _opened(path: Path) -> tuple[IO[bytes], sqlite3.Connection, InboxIdentity]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        mark = opened.enter_context(present(path))
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        opened.callback(connection.close)
        prepare(connection)
        identity = identity_in(connection, path, SCHEMA)
        connection.execute(IMPORTED)
        connection.execute(DECLARATION)
        _add_columns(connection)
        opened.pop_all()
    return mark, connection, identity


def _add_columns(connection: sqlite3.Connection) -> None:
    """Give an inbox of before the columns that its entries lack; its old ones have no value there."""
    if not missing_columns(connection):
        return
    connection.execute("BEGIN IMMEDIATE")  # another process may do so at the same time
    try:
        for name in missing_columns(connection):
            connection.execute(f"ALTER TABLE entry ADD COLUMN {name} INTEGER")
    finally:
        connection.execute("COMMIT")
