"""A worker as its parent sees it: whether it has served, and whether its loop goes on."""

import asyncio
import logging
import os
import time
from contextlib import suppress
from ctypes import c_char, c_double
from multiprocessing import get_context
from socket import socket

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config
from uvicorn.supervisors.multiprocess import Process

from headwater.serving.isolation import at_work

__all__ = ["Beating", "WorkerProcess"]

_BEAT_S = 0.25
_LONGEST_END_S = 40.0  # it drains for twenty
_BETWEEN_LOOKS_S = 1.0
_logger = logging.getLogger("headwater.serving")


class WorkerProcess(Process):
    """A worker process of uvicorn, which tells its parent that its loop goes on.

    uvicorn asks a thread of the worker, which answers while a model holds the loop for ever.

    Parameters
    ----------
    config, sockets
        As uvicorn takes them.
    """

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        forked = get_context("forkserver")
        self._beat = forked.RawValue(c_double, 0.0)
        self._at_work = forked.RawArray(c_char, at_work.LENGTH)
        self._seen_beat, self._looked_s, self._still_s = 0.0, 0.0, 0.0
        self._told_s = 0.0
        self.longest_end_s = _LONGEST_END_S
        super().__init__(config, sockets)

    def start(self) -> None:
        """Start the worker."""
        super().start()
        # While the child's end is open here too, a wait for its answer does not notice its death.
        self.child_conn.close()

    def terminate(self) -> None:
        """Tell it to end."""
        self._told_s = time.monotonic()
        super().terminate()

    def join(self) -> None:
        """Wait until it has ended; kill it if it does not: a model may hold it, or ignore signals."""
        left_s = self.longest_end_s - (time.monotonic() - self._told_s) if self._told_s else None
        self.process.join(left_s if left_s is None else max(0.0, left_s))
        if self.process.is_alive():
            _logger.warning("a worker did not end within %g s: it is killed", self.longest_end_s)
            self.process.kill()
            self.process.join()

    def target(self, sockets: list[socket] | None = None) -> None:
        """Serve; in the worker."""
        Beating.beat = self._beat
        at_work.share(self._at_work)
        super().target(sockets)

    @property
    def has_served(self) -> bool:
        """Whether it has ever started to serve; known after its end, too."""
        return bool(self._beat.value)

    @property
    def work(self) -> at_work.ModelWork | None:
        """The prediction that its loop works on; None if it is at none."""
        return at_work.work_of(self._at_work.value)

    @property
    def last_work(self) -> at_work.ModelWork | None:
        """The prediction that its loop worked on last; what it left behind may end the worker later."""
        return at_work.last_work_of(self._at_work.raw)

    def stands_still(self, longest_s: float, now_s: float) -> bool:
        """Return whether its loop stood still for so many seconds while its parent looked.

        A pause of both, as of a container or a machine, is no stall: a look counts for a second at most.

        Parameters
        ----------
        longest_s
            How many seconds it may.
        now_s
            The time of this look, in seconds of a clock that only rises.
        """
        beat = self._beat.value
        if beat != self._seen_beat:
            self._seen_beat, self._still_s = beat, 0.0
        elif beat:
            self._still_s += min(now_s - self._looked_s, _BETWEEN_LOOKS_S)
        self._looked_s = now_s
        return self._still_s > longest_s


class Beating:
    """Wrap the service of a worker: once it serves, and while its loop goes on, its parent is told.

    Parameters
    ----------
    app
        The service.

    Attributes
    ----------
    beat
        Changes with each beat; 0 before the first, and None outside a worker.
    """

    beat: c_double | None = None

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._beats: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the start and end of the service."""
        if scope["type"] != "lifespan" or self.beat is None:
            await self._app(scope, receive, send)
            return
        beat = self.beat

        async def starting(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._beats = asyncio.create_task(_go_on(beat))
            await send(message)

        try:
            await self._app(scope, receive, starting)
        finally:
            if self._beats is not None:
                self._beats.cancel()


async def _go_on(beat: c_double) -> None:
    while True:
        with suppress(OSError):  # without a free descriptor no connection is taken: it stands still, too
            os.close(os.dup(2))
            beat.value += 1.0
        await asyncio.sleep(_BEAT_S)
