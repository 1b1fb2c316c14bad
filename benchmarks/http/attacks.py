"""What a page sends to servers of its reader's machine, in each way that a browser has."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import msgspec

from benchmarks.http.chromium import Tab

__all__ = ["EVIL", "WAYS", "Attack", "attacked", "pages"]

EVIL = "evil.test"
"""Name of the page's server, which its owner points at 127.0.0.1 (DNS rebinding)."""

WAYS = (
    "form as text",
    "form by name",
    "form in parts",
    "fetch as text",
    "fetch as form",
    "fetch as parts",
    "fetch without a type",
    "beacon",
    "fetch GET",
    "image",
    "script",
    "style sheet",
    "frame",
    "socket",
    "fetch as it is",
)
_SCRIPT = (Path(__file__).parent / "attack.js").read_text()


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """A request that would have an effect.

    Parameters
    ----------
    method, path
        As the server has it.
    body
        JSON, with ``EVIL`` in a text, where each request has another text, with ``=`` in it.
    messages
        What is sent if it opens a socket.
    """

    method: str
    path: str
    body: str = '{"name": "EVIL"}'
    messages: tuple[str, ...] = ()


def attacked(tab: Tab, base: str, way: str, attacks: Sequence[Attack]) -> None:
    """Send attacks from the page that is open, in one way.

    Parameters
    ----------
    tab
        Where the page is open.
    base
        Where they go: ``http://HOST:PORT``.
    way
        One of :data:`WAYS`.
    attacks
        What is sent.
    """
    requests = [
        {
            "address": base + one.path,
            "method": one.method,
            "body": one.body,
            "messages": one.messages,
        }
        for one in attacks
    ]
    tab.run(f"{_SCRIPT}\nattack({json.dumps(way)}, {json.dumps(requests)})")


@contextmanager
def pages() -> Iterator[int]:
    """Serve an empty page on loopback, under any name; yield the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer with the page."""
        body = b"<!doctype html><title>elsewhere</title><body>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
