"""uvicorn's HTTP protocol with bounds: of what a connection may send, of its time, and of how many live.

uvicorn leaves these to a proxy before it; headwater is asked without one, too:

- A request's head has at most 100 lines and 64 kB, and comes within ten seconds; so do the lines after a
  chunked body, which are dropped. What is more is refused before it is kept.
- HTTP/1.1 has one Host, of valid form (RFC 9112, 3.2).
- Upgrades are ignored, as RFC 9110, 7.8 allows, and the request is answered as it stands. uvicorn's
  parser loses the body of such a request.
- A sender that closes its half of the connection gets its answers (RFC 9112, 9.6).
- A refused request is answered after the ones before it on its connection, or not at all.
- Connections beyond the bound are told to come again; those that stand still are closed.
"""

import asyncio
import re
from typing import Any, NamedTuple

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from headwater.serving.api.problems import PROBLEM_TYPE, Problem

__all__ = ["CONNECTION_BOUNDS", "REFUSED", "ConnectionBounds", "StrictProtocol"]

CONNECTION_BOUNDS = "headwater.connection_bounds"
"""Key of the lifespan's state that holds the :class:`ConnectionBounds`, if not the usual ones."""

REFUSED = "headwater.refused"
"""Key of that state that holds what is called with the status of each refusal."""

_SWEEPS = "headwater.sweeps"
_SWEEP_S = 1.0
_MOST_KNOWN = 100
_UPGRADING = (b"upgrade", b"http2-settings")
_HOST = re.compile(
    rb"(\[[0-9A-Fa-f:.vV!$&'()*+,;=~_-]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]{0,5})?"
)  # RFC 3986, 3.2.2


class ConnectionBounds(NamedTuple):
    """Bounds of what connections may send and hold.

    Parameters
    ----------
    most_lines, most_bytes
        Of the head of a request.
    within_s
        Seconds within which a head must come, and within which a receiver must take some of its answer.
    most_connections
        How many a worker keeps at once.
    """

    most_lines: int = 100
    most_bytes: int = 65_536
    within_s: float = 10.0
    most_connections: int = 1_000


class _RefusedError(Exception):
    """A request that is refused before its application sees it."""

    def __init__(self, status: int, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.problem = Problem(status=status, title="the request is refused", detail=detail, hint=hint)


class StrictProtocol(HttpToolsProtocol):
    """uvicorn's protocol within bounds; for the callbacks of the parser that a subclass has.

    Attributes
    ----------
    has_refused
        Whether a request was refused: the connection ends, and takes nothing more.
    progressed
        Whether the bytes that came last were of use; a subclass sets it for the parts of a body.
    upgrades
        Whether the present request asks for an upgrade: it is parsed again, without.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds: ConnectionBounds = self.app_state.get(CONNECTION_BOUNDS) or ConnectionBounds()
        self._known_hosts: set[bytes] = set()
        self._hosts: list[bytes] = []
        self._is_reading_head = True
        self._is_open = False
        self.has_refused = self.progressed = self.upgrades = False
        self._unread_bytes = 0
        self._due_at: float | None = None
        self._stalled_at: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Take a connection, or tell its sender to come again if there are too many."""
        super().connection_made(transport)
        self._due_at = self.loop.time() + self._bounds.within_s
        if len(self.connections) > self._bounds.most_connections:
            self._refuse(_RefusedError(503, "there are too many connections", "come again in a moment"))
        elif _SWEEPS not in self.app_state:
            self.app_state[_SWEEPS] = self.loop.call_later(_SWEEP_S, self._sweep)

    def data_received(self, data: bytes) -> None:
        """Receive bytes within the bounds."""
        if self.has_refused:
            return
        self._unset_keepalive_if_required()
        self.progressed = False
        self._unread_bytes += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as error:
                self._feed_without_upgrade(data, error)
            if self._is_reading_head or not self.progressed:
                self._wait_for_more()
            else:
                self._unread_bytes = 0
        except _RefusedError as error:
            self._refuse(error)
        except httptools.HttpParserError as error:
            refused = error.__context__
            if not isinstance(refused, _RefusedError):
                refused = _RefusedError(400, "the request is no HTTP/1.1", "send it as RFC 9112 has it")
            self._refuse(refused)

    def _wait_for_more(self) -> None:
        """Bound what comes without being of use, and how long a head may take; empty lines are none."""
        if self.progressed:
            self._unread_bytes = 0
        elif self._unread_bytes > self._bounds.most_bytes:
            raise _too_long(self._bounds)
        if self._due_at is None and (self._is_reading_head or not (self._is_open or self._is_answering)):
            self._due_at = self.loop.time() + self._bounds.within_s

    def eof_received(self) -> bool | None:  # type: ignore[override] # asyncio takes a boolean
        """Keep the connection for the answers that its sender waits for."""
        waits = self._is_answering and not self._is_open
        if waits:
            self.cycle.keep_alive = False
        return waits

    def pause_writing(self) -> None:
        """Note since when the receiver takes nothing."""
        self._stalled_at = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that the receiver takes its answer."""
        self._stalled_at = None
        super().resume_writing()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a line of the head; lines after a chunked body are dropped."""
        if not self._is_reading_head:
            return
        name = name.lower()
        if name == b"host":
            value = value.rstrip(b" \t")
            self._hosts.append(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def begin_head(self) -> None:
        """Begin to read the head of a request."""
        self._is_reading_head = self._is_open = True
        self._hosts.clear()
        self._due_at = None

    def check_head(self) -> bool:
        """Check a complete head; return whether it is to be answered now.

        Raises
        ------
        _RefusedError
            If it is not within the bounds, or has no Host, or several.
        """
        self._is_reading_head, self.progressed, self._due_at = False, True, None
        bounds = self._bounds
        if len(self.headers) > bounds.most_lines:
            raise _too_long(bounds)
        if self._unread_bytes > bounds.most_bytes:
            length = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if length + len(self.url) > bounds.most_bytes:
                raise _too_long(bounds)
        self._check_host()
        self.upgrades = self.parser.should_upgrade()
        if not self.upgrades:
            return True
        if self.parser.get_method() == b"CONNECT":
            raise _RefusedError(400, "CONNECT is for proxies, which this is not", "ask it directly")
        return False

    def end_message(self) -> None:
        """Note that a message has come whole."""
        self._is_open = False

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _check_host(self) -> None:
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise _RefusedError(400, f"this is HTTP/{version}", "send HTTP/1.1")
        hosts = self._hosts
        if len(hosts) != 1:
            if hosts or version == "1.1":
                count = "several lines Host" if hosts else "no Host"
                raise _RefusedError(400, f"the request has {count}", "send one line Host")
            return
        if hosts[0] not in self._known_hosts:
            if _HOST.fullmatch(hosts[0]) is None:
                raise _RefusedError(400, "Host names no host", "send a name or an address")
            if len(self._known_hosts) < _MOST_KNOWN:
                self._known_hosts.add(hosts[0])

    def _feed_without_upgrade(self, data: bytes, error: httptools.HttpParserUpgrade) -> None:
        """Parse a request that asks for an upgrade again without asking, and what follows it."""
        while True:
            head = _head_without_upgrade(self.parser, self.url, self.headers)
            data = head + data[error.args[0] :]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as another:
                error = another
            else:
                return

    def _refuse(self, error: _RefusedError) -> None:
        """Answer a request that is refused, and close; only close if one before it is not answered."""
        self.has_refused = True
        if count := self.app_state.get(REFUSED):
            count(error.problem.status)
        if self._is_answering:
            self.cycle.keep_alive = False
            return
        self.transport.write(_reply_of(error.problem, self.server_state.default_headers))
        self.transport.close()

    def _sweep(self) -> None:
        """Close the connections that stand still; look again while there are any."""
        now = self.loop.time()
        for connection in list(self.connections):
            if isinstance(connection, StrictProtocol):
                connection.close_if_overdue(now)
        if self.connections:
            self.app_state[_SWEEPS] = self.loop.call_later(_SWEEP_S, self._sweep)
        else:
            del self.app_state[_SWEEPS]

    def close_if_overdue(self, now: float) -> None:
        """Close the connection if its head is late, or if its receiver takes nothing."""
        if self._stalled_at is not None and now > self._stalled_at + self._bounds.within_s:
            self.transport.abort()
            return
        if self._due_at is None and self._is_open and not self._is_answering:
            self._due_at = now + self._bounds.within_s  # for the rest of a request that has its answer
        if self._due_at is None or now <= self._due_at or self.transport.is_closing():
            return
        if not (self._is_open and self._is_reading_head):
            self.transport.close()  # nothing is asked
        else:
            what = f"the head did not come within {self._bounds.within_s:g} seconds"
            self._refuse(_RefusedError(408, what, "send it at once"))


def _too_long(bounds: ConnectionBounds) -> _RefusedError:
    return _RefusedError(
        431,
        f"the head has more than {bounds.most_lines} lines, or {bounds.most_bytes:,} bytes",
        "send fewer headers",
    )


def _reply_of(problem: Problem, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    body = msgspec.json.encode(problem)
    lines = [STATUS_LINE[problem.status]]
    lines += [b"%b: %b\r\n" % header for header in default_headers]
    if problem.status == 503:
        lines.append(b"retry-after: 1\r\n")
    lines.append(b"content-type: %b\r\ncontent-length: %d\r\n" % (PROBLEM_TYPE, len(body)))
    return b"".join((*lines, b"connection: close\r\n\r\n", body))


def _head_without_upgrade(
    parser: httptools.HttpRequestParser, url: bytes, headers: list[tuple[bytes, bytes]]
) -> bytes:
    version = parser.get_http_version().encode()
    lines = [b"%b %b HTTP/%b\r\n" % (parser.get_method(), url, version)]
    lines += [b"%b: %b\r\n" % line for line in _without_upgrade(headers)]
    return b"".join((*lines, b"\r\n"))


def _without_upgrade(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers without what asks for another protocol.

    >>> _without_upgrade([(b"upgrade", b"h2c"), (b"connection", b"close, Upgrade"), (b"host", b"here")])
    [(b'connection', b'close'), (b'host', b'here')]
    """
    left = []
    for name, value in headers:
        if name in _UPGRADING:
            continue
        if name == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            value = b", ".join(token for token in tokens if token.lower() not in _UPGRADING)  # noqa: PLW2901
        left.append((name, value))
    return left
