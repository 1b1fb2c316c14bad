"""Bounds of connections: slow ones are closed, too many told to come again, the others answered."""

import socket
import threading
from contextlib import suppress

import httpx
import pytest
from benchmarks.http.raw_http import measure
from starlette.types import Receive, Scope, Send
from tests.patience import PATIENCE_S
from tests.serving.conftest import Opener
from tests.serving.running import running

from headwater.serving.http.strict_protocol import CONNECTION_BOUNDS, ConnectionBounds
from headwater.serving.keeper.keeper import Keeper

SOON = ConnectionBounds(within_s=0.05)
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n"


def connecting(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), PATIENCE_S)


def all_of(connection: socket.socket) -> bytes:
    """Return what comes until the server ends the connection."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.fixture
def hasty(keeper: Keeper, open_service: Opener) -> httpx.Client:
    """Return a client of a service that waits for little."""
    return open_service(bounds=SOON)


def test_raw_requests_are_answered_as_the_rfcs_have_it() -> None:
    found = measure(short=True)
    assert found.numbers["wrong"] == []
    assert found.holds


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"\r\n\r\n", b""),
        (b"G", b"HTTP/1.1 408 "),
        (LIVE, b"HTTP/1.1 408 "),
        (LIVE + b"\r\n\r\n", b"HTTP/1.1 200 "),
        (LIVE + b"content-length: 99\r\n\r\nx", b"HTTP/1.1 200 "),
    ],
    ids=["nothing", "empty lines", "one byte", "half a head", "an empty line after", "half a body"],
)
def test_a_connection_that_stands_still_is_closed(
    sent: bytes, answer: bytes, hasty: httpx.Client
) -> None:
    with connecting(hasty) as connection:
        connection.sendall(sent)
        found = all_of(connection)
    assert found.startswith(answer)
    assert found == b"" or answer != b""
    assert hasty.get("/v2/health/live").status_code == 200


def test_too_many_connections_are_told_to_come_again(keeper: Keeper, open_service: Opener) -> None:
    client = open_service(bounds=ConnectionBounds(most_connections=3))
    client.get("/v2/health/live", headers={"connection": "close"})
    kept = [connecting(client) for _ in range(3)]
    for one in kept:  # each is taken once it is answered
        one.sendall(LIVE + b"\r\n")
        assert one.recv(65_536).startswith(b"HTTP/1.1 200 ")
    with connecting(client) as more:
        refused = all_of(more)
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in refused
    for one in kept:
        one.sendall(LIVE + b"connection: close\r\n\r\n")
        assert all_of(one).startswith(b"HTTP/1.1 200 ")
        one.close()
    assert 'headwater_problems_total{status="503"} 1.0' in client.get("/metrics").text


def test_a_receiver_that_takes_nothing_is_dropped() -> None:
    length, answered = 50_000_000, threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"][CONNECTION_BOUNDS] = SOON
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(length), "more_body": True})
        await send({"type": "http.response.body"})  # once the first part is taken, or given up
        answered.set()

    with running(app) as client, connecting(client) as connection:
        connection.sendall(LIVE + b"connection: close\r\n\r\n")
        assert connection.recv(1) == b"H"
        assert answered.wait(PATIENCE_S)
        with suppress(ConnectionError):
            assert len(all_of(connection)) < length
