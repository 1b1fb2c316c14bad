"""A worker as its parent sees it: it lives, and its loop goes on."""

import asyncio
import time
from ctypes import c_double
from multiprocessing import get_context
from socket import socket

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config
from uvicorn.supervisors.multiprocess import Process

__all__ = ["Beating", "WorkerProcess"]

_BEAT_S = 0.25


class WorkerProcess(Process):
    """A worker process of uvicorn, which tells its parent that its loop goes on.

    uvicorn asks a thread of the worker, which answers while a model holds the loop for ever.

    Parameters
    ----------
    config, sockets
        As uvicorn takes them.
    """

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        self._beat = get_context("forkserver").RawValue(c_double, 0.0)
        super().__init__(config, sockets)

    def target(self, sockets: list[socket] | None = None) -> None:
        """Serve; in the worker."""
        Beating.beat = self._beat
        super().target(sockets)

    def stands_still(self, longest_s: float) -> bool:
        """Return whether the loop has begun, and then stood still for so many seconds."""
        beat_s: float = self._beat.value
        return beat_s > 0 and time.monotonic() - beat_s > longest_s


class Beating:
    """Wrap the service of a worker: while its loop goes on, its parent is told.

    Parameters
    ----------
    app
        The service.

    Attributes
    ----------
    beat
        Holds the time of the last beat, in seconds of the monotonic clock, which all processes share;
        None outside a worker.
    """

    beat: c_double | None = None

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the start and end of the service."""
        if scope["type"] != "lifespan" or self.beat is None:
            await self._app(scope, receive, send)
            return
        beating = asyncio.create_task(self._go_on(self.beat))
        try:
            await self._app(scope, receive, send)
        finally:
            beating.cancel()

    @staticmethod
    async def _go_on(beat: c_double) -> None:
        while True:
            beat.value = time.monotonic()
            await asyncio.sleep(_BEAT_S)
