"""What keeps an inbox whole: how far it was acknowledged, its declarations, and mending."""

import sqlite3
from pathlib import Path

from headwater.features.record.entries import PREDICTION
from headwater.features.record.inbox_reader import STAND_IN, InboxReader, refused
from headwater.features.record.inbox_transaction import InboxTransaction
from headwater.infra.ids import new_id
from headwater.infra.store.end_mark import EndMark
from headwater.spec.errors import IntegrityError

__all__ = ["KeptInbox"]


class KeptInbox(InboxReader):
    """An inbox that can be held against what it has acknowledged, and mended.

    Parameters
    ----------
    path, connection, transaction
        Of the inbox's own file.
    """

    _mark: EndMark

    def __init__(
        self, path: Path, connection: sqlite3.Connection, transaction: InboxTransaction
    ) -> None:
        super().__init__(path, connection, transaction.lock)
        self._transaction = transaction

    def check_end(self) -> None:
        """Check that it has the newest record that was acknowledged.

        Raises
        ------
        IntegrityError
            If it has not; nothing may be recorded then, for its position would be given again.
        """
        acknowledged = self._mark.read()  # first: others go on recording
        end = self.end()
        if end < acknowledged:
            raise IntegrityError(
                f"the inbox {self.path} ends at position {end}, and had acknowledged records up to "
                f"{acknowledged}: its write-ahead log was cut or lost, or it is an older copy",
                hint="restore the newest copy of the inbox; if there is none, headwater doctor --repair "
                "puts back what the database has read, and names what is lost",
            )

    def pass_over_lost(self) -> range:
        """Leave the positions empty that were acknowledged and are gone; return them.

        At the last one something stands in, so that none of them is given again; the sequencer writes
        them all down as lost.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        lost = range(self.end() + 1, self._mark.read() + 1)
        if lost:
            row = (lost[-1], PREDICTION, new_id(), "", 0, *STAND_IN, None)
            try:
                with self._transaction:
                    self._connection.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            except (sqlite3.Error, OSError) as error:
                raise refused(self.path, error) from error
        return lost

    def _move_mark(self) -> None:
        self._mark.move(self._end())

    def declare(self, hash_: int, content: str) -> None:
        """Keep what entries will be recorded under, before the first one that bears its hash.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        if self.declaration(hash_) is None:
            try:
                with self._transaction:
                    self._connection.execute(
                        "INSERT OR IGNORE INTO declaration VALUES (?, ?)", (hash_, content)
                    )
            except (sqlite3.Error, OSError) as error:
                raise refused(self.path, error) from error

    def mend(self, position: int, payload: bytes | None) -> None:
        """Put the whole payload of a damaged entry in its place, or remove an entry that is lost.

        Where the newest one is lost, something stands in: its position is not given again.

        Raises
        ------
        StorageError
            If the disk refuses, or the entry lies in a damaged page.
        """
        try:
            with self._transaction:
                if payload is None and position == self._end():
                    statement = "UPDATE entry SET payload = ?, checksum = ? WHERE position = ?"
                    self._connection.execute(statement, (*STAND_IN, position))
                elif payload is None:
                    self._connection.execute("DELETE FROM entry WHERE position = ?", (position,))
                else:
                    statement = "UPDATE entry SET payload = ? WHERE position = ?"
                    self._connection.execute(statement, (payload, position))
        except (sqlite3.Error, OSError) as error:
            raise refused(self.path, error) from error
