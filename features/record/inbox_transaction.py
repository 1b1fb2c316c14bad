"""A transaction of an inbox's file, one at a time, in the turn of its process."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import ExitStack

from headwater.infra.store.turns import WriterQueue
from headwater.spec.errors import StorageError

__all__ = ["InboxTransaction"]


class InboxTransaction:
    """One transaction at a time; a nested one belongs to the outer one, and its error fails both.

    Parameters
    ----------
    connection, turns
        Of the file.
    committed
        Called after each commit, in the same turn.
    """

    def __init__(
        self, connection: sqlite3.Connection, turns: WriterQueue, committed: Callable[[], None]
    ) -> None:
        self.lock = threading.RLock()
        self._connection = connection
        self._turns = turns
        self._committed = committed
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
            self._committed()
            return
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        if passed_over:
            raise StorageError(
                "one_sync keeps nothing: a batch within was refused, and the error was passed over",
                hint="let the error out of the block, then send all of it again without that batch",
            )
