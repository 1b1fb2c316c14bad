"""Group commit: while one sync runs, records queue up and share the next.

A first thread writes and syncs. A second thread copies SQLite's write-ahead log into its file: if the
commits did that, one commit in a thousand would take tens of milliseconds, while hundreds of requests
wait.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import NamedTuple

from headwater.features.record.entries import Entry
from headwater.features.record.inbox import Inbox
from headwater.infra.store.local_storage import refusal_of
from headwater.spec.errors import ConflictError, HeadwaterError, OverloadedError, StorageError

__all__ = ["AppendResult", "GroupCommit"]

AppendResult = int | ConflictError
"""The number of new entries of a batch, or the conflict for which none of it was stored."""

_MOST_TOGETHER = 2_000
_SYNCS_A_COPY = 64
_LONGEST_WRITE_S = 5.0


class _Waiting(NamedTuple):
    """Batches of one caller, and the future for which it waits; None if it does not wait."""

    batches: Sequence[Sequence[Entry]]
    entries: int
    future: "asyncio.Future[list[AppendResult]] | None"


class GroupCommit:
    """Append to an inbox from one event loop; many callers share one synced transaction.

    A serving process makes one for each pipeline; :meth:`close` writes the waiting entries, then ends
    the threads.

    Parameters
    ----------
    inbox
        The inbox that stores the entries.
    most_waiting
        The largest number of waiting entries; more are refused.
    gather_s
        Seconds for which the thread gathers entries before it writes; 0 writes at once.

    Attributes
    ----------
    refused
        Why the disk refused the last entries; None if it took them, or takes others since.
    """

    def __init__(self, inbox: Inbox, most_waiting: int, gather_s: float = 0.0) -> None:
        self._inbox = inbox
        self._most_waiting = most_waiting
        self._gather_s = gather_s
        self._queue: deque[_Waiting] = deque()
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._sleeps = False
        self._loop = asyncio.get_running_loop()
        self._lost_failure: StorageError | None = None
        self.refused: StorageError | None = None
        self.waiting = 0
        self.syncs = 0
        self._began_s = math.inf
        self._thread = threading.Thread(
            target=self._write, name=f"commit {inbox.path.stem}", daemon=True
        )
        self._thread.start()
        self._copy_now: SimpleQueue[bool] = SimpleQueue()
        self._copier = threading.Thread(target=self._copy, name=f"copy {inbox.path.stem}", daemon=True)
        self._copier.start()

    async def append(self, batches: Sequence[Sequence[Entry]]) -> list[AppendResult]:
        """Store batches, each independently of the others; they are durable when this returns.

        Raises
        ------
        OverloadedError
            If too many entries wait already; nothing is stored.
        StorageError
            If the disk refuses; nothing is stored.
        """
        future: asyncio.Future[list[AppendResult]] = self._loop.create_future()
        self._put(batches, future)
        return await future

    def append_later(self, batches: Sequence[Sequence[Entry]]) -> None:
        """Store batches within the gathering time, without waiting for it.

        Raises
        ------
        OverloadedError
            If too many entries wait already; nothing is stored.
        StorageError
            If the disk refused entries that were given here before: they may be lost.
        """
        if self._lost_failure is not None:
            failure, self._lost_failure = self._lost_failure, None
            raise failure
        self._put(batches, None)

    def fault(self) -> HeadwaterError | None:
        """Return why a record would be refused now, or wait long: too many wait, or the disk refuses."""
        if self.waiting >= self._most_waiting:
            return self._overloaded()
        if time.monotonic() - self._began_s < _LONGEST_WRITE_S:
            return self.refused
        return StorageError(
            f"the inbox {self._inbox.path} has taken no record for {_LONGEST_WRITE_S:.0f} s",
            hint="look for a process that holds it and was stopped; what waits is written "
            "or refused within a minute",
        )

    async def try_disk(self) -> None:
        """Try a disk that refused: a service of which nothing is asked must notice that it has room."""
        refused = self.refused
        if refused is None:
            return
        refusal: str | None = await asyncio.to_thread(refusal_of, self._inbox.path.parent)
        if refusal is None and self.refused is refused:
            self.refused = None

    async def close(self) -> None:
        """Write the waiting entries, and end the threads."""
        self._wake.put(False)
        self._copy_now.put(False)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._copier.join)

    def _put(
        self, batches: Sequence[Sequence[Entry]], future: "asyncio.Future[list[AppendResult]] | None"
    ) -> None:
        entries = sum(map(len, batches))
        if self.waiting and self.waiting + entries > self._most_waiting:
            raise self._overloaded()
        self.waiting += entries
        self._queue.append(_Waiting(batches, entries, future))
        if self._sleeps:  # it is not woken while it writes: it looks again before it sleeps
            self._sleeps = False
            # Once this turn of the loop has read all that came: one sync for all of it, and meanwhile no
            # second thread that wants the interpreter.
            self._loop.call_soon(self._wake.put, True)

    def _overloaded(self) -> OverloadedError:
        return OverloadedError(
            f"{self.waiting:,} records wait for the disk, which is the limit",
            hint="send the request again in a second",
        )

    def _write(self) -> None:
        goes_on = True
        while goes_on or self._queue:
            together = self._take()
            if together:
                self._write_together(together)
                continue
            self._sleeps = True
            if not self._queue:
                goes_on = self._wake.get()
            self._sleeps = False

    def _write_together(self, together: list[_Waiting]) -> None:
        batches = [batch for waiting in together for batch in waiting.batches]
        failure, results = None, []
        self._began_s = time.monotonic()
        try:
            results = self._inbox.append_each(batches)
        except StorageError as error:
            failure = error
        finally:
            self._began_s = math.inf
        self._loop.call_soon_threadsafe(self._deliver, together, results, failure)

    def _copy(self) -> None:
        while self._copy_now.get():
            with suppress(StorageError):  # the next commit meets it too, and tells those who wait
                self._inbox.copy_log()

    def _take(self) -> list[_Waiting]:
        """Take the waiting entries, up to a limit; there may be none."""
        queue, together, entries = self._queue, [], 0
        if self._gather_s and queue and queue[0].future is None:
            time.sleep(self._gather_s)
        while queue and entries < _MOST_TOGETHER:
            together.append(queue.popleft())
            entries += together[-1].entries
        return together

    def _deliver(
        self, together: list[_Waiting], results: list[AppendResult], failure: StorageError | None
    ) -> None:
        self.syncs += 1
        self.refused = failure
        if not self.syncs % _SYNCS_A_COPY and self._copy_now.empty():
            self._copy_now.put(True)
        place = 0
        for waiting in together:
            own_results = results[place : place + len(waiting.batches)]
            place += len(waiting.batches)
            self.waiting -= waiting.entries
            if waiting.future is None:
                self._lost_failure = failure or self._lost_failure
            elif waiting.future.cancelled():
                continue
            elif failure is not None:
                waiting.future.set_exception(failure)
            else:
                waiting.future.set_result(own_results)
