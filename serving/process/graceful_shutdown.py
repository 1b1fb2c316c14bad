"""Let a worker end without losing a request: answers close their connections first."""

import asyncio
import signal
import threading
from collections.abc import MutableMapping
from types import FrameType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater.serving.http.fast_protocol import DRAINS

__all__ = ["GracefulShutdown"]

_CLOSE = (b"connection", b"close")


class GracefulShutdown:
    """Wrap the service; after SIGTERM every answer closes its connection, then the server ends.

    If a server closes an idle connection just as a request comes in on it, the request is lost. A
    connection that is closed with its last answer has no request in flight.

    Parameters
    ----------
    app
        The service.
    drain_s
        Seconds between the signal and the end of the server.
    """

    def __init__(self, app: ASGIApp, drain_s: float) -> None:
        self._app = app
        self._drain_s = drain_s
        self._drains = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the start and end of the service."""
        if scope["type"] == "lifespan":
            self._take_signal(scope.get("state", {}))
        elif self._drains and scope["type"] == "http":
            await self._app(scope, receive, _closing(send))
            return
        await self._app(scope, receive, send)

    def _take_signal(self, state: MutableMapping[str, object]) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        loop, ends = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
        if not callable(ends):
            return

        def drain(sign: int, _frame: FrameType | None) -> None:
            if self._drains:  # asked twice: at once
                ends(sign, None)
                return
            self._drains = state[DRAINS] = True
            loop.call_soon_threadsafe(loop.call_later, self._drain_s, ends, sign, None)

        signal.signal(signal.SIGTERM, drain)


def _closing(send: Send) -> Send:
    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), _CLOSE]
        await send(message)

    return closing
