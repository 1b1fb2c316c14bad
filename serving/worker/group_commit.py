"""Many requests to one sync: a thread writes what came while the last sync ran.

A second thread copies SQLite's write-ahead log into its file. Left to the commits, one in a thousand
takes tens of milliseconds over it, in which hundreds of requests wait.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import NamedTuple

from headwater.features.record.inbox import Entry, Inbox
from headwater.spec.errors import ConflictError, OverloadedError, StorageError

__all__ = ["Ended", "GroupCommit"]

Ended = int | ConflictError
"""How many entries of a batch were new, or why none of it was kept."""

_MOST_TOGETHER = 2_000
_SYNCS_A_COPY = 64


class _Waiting(NamedTuple):
    """Batches that belong together, and who waits for them; nobody does where `future` is None."""

    batches: Sequence[Sequence[Entry]]
    entries: int
    future: "asyncio.Future[list[Ended]] | None"


class GroupCommit:
    """Appends to an inbox from one event loop, many callers to one synced transaction.

    Made by a serving process for each pipeline; :meth:`close` writes what waits, then ends the thread.

    Parameters
    ----------
    inbox
        Where entries go.
    most_waiting
        How many entries may wait; more are refused.
    gather_s
        How long the thread waits for more company before it writes; 0 writes at once.
    """

    def __init__(self, inbox: Inbox, most_waiting: int, gather_s: float = 0.0) -> None:
        self._inbox = inbox
        self._most_waiting = most_waiting
        self._gather_s = gather_s
        self._waits: deque[_Waiting] = deque()
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._sleeps = False
        self._loop = asyncio.get_running_loop()
        self._lost: StorageError | None = None
        self.waiting = 0
        self.syncs = 0
        self._thread = threading.Thread(
            target=self._write, name=f"commit {inbox.path.stem}", daemon=True
        )
        self._thread.start()
        self._copy_now: SimpleQueue[bool] = SimpleQueue()
        self._copier = threading.Thread(target=self._copy, name=f"copy {inbox.path.stem}", daemon=True)
        self._copier.start()

    async def append(self, batches: Sequence[Sequence[Entry]]) -> list[Ended]:
        """Store batches, each for itself; durable when this returns.

        Raises
        ------
        OverloadedError
            If too much waits already; nothing is kept then.
        StorageError
            If the disk refuses; nothing is kept then.
        """
        future: asyncio.Future[list[Ended]] = self._loop.create_future()
        self._put(batches, future)
        return await future

    def append_later(self, batches: Sequence[Sequence[Entry]]) -> None:
        """Store batches within the gathering time, without waiting for it.

        Raises
        ------
        OverloadedError
            If too much waits already; nothing is kept then.
        StorageError
            If the disk refused what was given here before: it may be lost.
        """
        if self._lost is not None:
            lost, self._lost = self._lost, None
            raise lost
        self._put(batches, None)

    async def close(self) -> None:
        """Write what waits, and end."""
        self._wake.put(False)
        self._copy_now.put(False)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._copier.join)

    def _put(
        self, batches: Sequence[Sequence[Entry]], future: "asyncio.Future[list[Ended]] | None"
    ) -> None:
        entries = sum(map(len, batches))
        if self.waiting and self.waiting + entries > self._most_waiting:
            raise OverloadedError(
                f"{self.waiting:,} records wait for the disk, and no more may",
                hint="send the request again in a second",
            )
        self.waiting += entries
        self._waits.append(_Waiting(batches, entries, future))
        if self._sleeps:  # it is not woken while it writes: it looks again before it sleeps
            self._sleeps = False
            # Once this turn of the loop has read all that came: one sync for all of it, and meanwhile no
            # second thread that wants the interpreter.
            self._loop.call_soon(self._wake.put, True)

    def _write(self) -> None:
        goes_on = True
        while goes_on or self._waits:
            together = self._take()
            if together:
                self._write_together(together)
                continue
            self._sleeps = True
            if not self._waits:
                goes_on = self._wake.get()
            self._sleeps = False

    def _write_together(self, together: list[_Waiting]) -> None:
        batches = [batch for one in together for batch in one.batches]
        failed, ended = None, []
        try:
            ended = self._inbox.append_each(batches)
        except StorageError as error:
            failed = error
        self._loop.call_soon_threadsafe(self._tell, together, ended, failed)

    def _copy(self) -> None:
        while self._copy_now.get():
            with suppress(StorageError):  # the next commit meets it too, and tells those who wait
                self._inbox.copy_log()

    def _take(self) -> list[_Waiting]:
        """Take what waits, which may be nothing."""
        waits, together, entries = self._waits, [], 0
        if self._gather_s and waits and waits[0].future is None:
            time.sleep(self._gather_s)
        while waits and entries < _MOST_TOGETHER:
            together.append(waits.popleft())
            entries += together[-1].entries
        return together

    def _tell(self, together: list[_Waiting], ended: list[Ended], failed: StorageError | None) -> None:
        self.syncs += 1
        if not self.syncs % _SYNCS_A_COPY and self._copy_now.empty():
            self._copy_now.put(True)
        place = 0
        for one in together:
            mine = ended[place : place + len(one.batches)]
            place += len(one.batches)
            self.waiting -= one.entries
            if one.future is None:
                self._lost = failed or self._lost
            elif one.future.cancelled():
                continue
            elif failed is not None:
                one.future.set_exception(failed)
            else:
                one.future.set_result(mine)
