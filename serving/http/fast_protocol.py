"""The HTTP protocol of the service: uvicorn's, with a short way for the hot routes.

Most of the cost of a small request in uvicorn is the exchange of ASGI messages: the scope, the cycle,
an event, two sends. A complete request of a hot route needs none of it: its path, headers and body go
to the route, and the reply goes to the socket. All other requests go uvicorn's own way. So does a hot
request that is long or slow, or that comes while another is answered on its connection.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Literal

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from headwater.serving.access.authentication import Authentication
from headwater.serving.api.reply import Headers, Reply
from headwater.serving.http.fast_routes import FastRoute
from headwater.serving.http.strict_protocol import StrictProtocol
from headwater.spec.errors import HeadwaterError

__all__ = ["DRAINS", "SHORT_WAY", "FastProtocol", "ShortWay", "http_protocol"]

SHORT_WAY = "headwater.short_way"
"""Key of the lifespan's state that holds the :class:`ShortWay`."""

DRAINS = "headwater.drains"
"""Key of that state that is set once every answer closes its connection."""

_TRIED_ON = "0.54."  # releases of uvicorn on which FastProtocol was tried
_MOST_BYTES = 65_536
_logger = logging.getLogger("headwater.serving")


def http_protocol() -> "type[FastProtocol] | Literal['httptools']":
    """Return the protocol for the uvicorn that is installed: its own on a release that was not tried."""
    if uvicorn.__version__.startswith(_TRIED_ON):
        return FastProtocol
    _logger.warning(
        "uvicorn is %s: requests go its own way, at more CPU and without bounds of connections; "
        "install uvicorn %sx for the short way",
        uvicorn.__version__,
        _TRIED_ON,
    )
    return "httptools"


class ShortWay:
    """Check the key of complete hot requests, and answer them.

    Parameters
    ----------
    guard
        Decides which requests are let in.
    hot
        A route for each path.
    patience_s
        How many seconds the rest of a request may take before it goes uvicorn's way.
    """

    def __init__(
        self, guard: Authentication, hot: Mapping[str, FastRoute], patience_s: float = 1.0
    ) -> None:
        self.patience_s = patience_s
        self._guard = guard
        self._hot = {path.encode(): (path, route) for path, route in hot.items()}

    def __contains__(self, path: bytes) -> bool:
        """Return whether there is a hot route of this path, as it came over the wire."""
        return path in self._hot

    async def reply(self, path: bytes, headers: Headers, body: bytes) -> Reply:
        """Answer a POST."""
        name, route = self._hot[path]
        try:
            by = self._guard.admit("POST", name, headers)
        except HeadwaterError as error:
            reply = self._guard.refusal(error, name)
        else:
            reply = await route.reply(body, by, headers)
        cross_origin = self._guard.cross_origin
        return reply if cross_origin is None else cross_origin.share(reply, headers)


class _Exchange:
    """A hot request; while it is answered, it takes the place of uvicorn's request cycle."""

    __slots__ = (
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "length",
        "message_event",
        "path",
        "response_complete",
    )

    def __init__(self, path: bytes, headers: Headers, *, keep_alive: bool) -> None:
        self.path = path
        self.headers = headers
        self.keep_alive = keep_alive
        self.body: list[bytes] = []
        self.length = 0
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NobodyWaits


class _NobodyWaits:
    """Takes the place of the event that wakes an ASGI application."""

    @staticmethod
    def set() -> None:
        """Wake nobody."""


class FastProtocol(StrictProtocol):
    """uvicorn's protocol within bounds, with a short way if the application's lifespan has one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._short_way: ShortWay | None = self.app_state.get(SHORT_WAY)
        self._reading: _Exchange | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._answering: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        """Receive bytes; give an incomplete hot request a moment for its rest."""
        super().data_received(data)
        if self.has_refused:
            self._end_reading()
        elif self._reading is not None and self._patience is None:
            assert self._short_way is not None  # noqa: S101 - it chose the way
            self._patience = self.loop.call_later(self._short_way.patience_s, self._take_long_way)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the request that was being read."""
        self._end_reading()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End the connection, after the answer to a request that is being read."""
        if self._reading is not None:
            self._reading.keep_alive = False
        else:
            super().shutdown()

    def on_message_begin(self) -> None:
        """Begin a request; uvicorn's scope is made later, if it is needed."""
        self.begin_head()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Choose the short way or uvicorn's own."""
        if not self.check_head():
            return
        short_way, parser = self._short_way, self.parser
        if (
            short_way is None
            or self.url not in short_way
            or parser.get_method() != b"POST"
            or self.expect_100_continue
            or not (self.cycle is None or self.cycle.response_complete)
        ):
            self._go_long_way()
            return
        keep_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive()
        self._reading = _Exchange(self.url, self.headers, keep_alive=keep_alive)

    def on_body(self, body: bytes) -> None:
        """Receive a part of a body."""
        self.progressed = True
        exchange = self._reading
        if exchange is None:
            super().on_body(body)
            return
        exchange.body.append(body)
        exchange.length += len(body)
        if exchange.length > _MOST_BYTES:
            self._take_long_way()

    def on_message_complete(self) -> None:
        """Answer a complete request."""
        if self.upgrades:
            return  # it comes again, without
        self.end_message()
        exchange = self._end_reading()
        if exchange is None:
            super().on_message_complete()
            return
        # It has all that uvicorn looks at.
        self.cycle = exchange  # type: ignore[assignment]
        self._answering = self.loop.create_task(self._answer(exchange))

    def _end_reading(self) -> _Exchange | None:
        """End the reading of a hot request; return it, or None if none was being read."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        exchange, self._reading = self._reading, None
        return exchange

    def _take_long_way(self) -> None:
        """Hand a partly read hot request to uvicorn, and so to the limits of the application."""
        exchange = self._end_reading()
        if exchange is not None:
            self._go_long_way()
            self.cycle.keep_alive = exchange.keep_alive
            super().on_body(b"".join(exchange.body))

    def _go_long_way(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers if url.startswith(b"/") else _for_host_of(url, headers)
        super().on_headers_complete()

    async def _answer(self, exchange: _Exchange) -> None:
        assert self._short_way is not None  # noqa: S101 - it chose the way
        try:
            body = exchange.body
            whole = body[0] if len(body) == 1 else b"".join(body)
            reply = await self._short_way.reply(exchange.path, exchange.headers, whole)
            if self.flow.write_paused:
                await self.flow.drain()
        except BaseException:
            _logger.exception("a request failed")
            self.transport.close()
            raise
        if not exchange.disconnected:
            self._write(exchange, reply)

    def _write(self, exchange: _Exchange, reply: Reply) -> None:
        keep_alive = exchange.keep_alive and DRAINS not in self.app_state
        parts = [STATUS_LINE[reply.status]]
        for name, value in (*self.server_state.default_headers, *reply.headers):
            parts += (name, b": ", value, b"\r\n")
        if not keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(
            b"content-type: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (reply.kind, len(reply.body), reply.body)
        )
        self.transport.write(b"".join(parts))
        exchange.response_complete = True
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()


def _for_host_of(url: bytes, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Replace the Host header by the host of an absolute request target (RFC 9112, 3.2.2).

    >>> _for_host_of(b"http://there:80/metrics", [(b"host", b"here"), (b"accept", b"*/*")])
    [(b'accept', b'*/*'), (b'host', b'there:80')]
    """
    scheme, _, rest = url.partition(b"://")
    if not rest or b"/" in scheme:
        return headers
    host = rest.partition(b"/")[0].partition(b"?")[0]
    return [*(one for one in headers if one[0] != b"host"), (b"host", host)]
