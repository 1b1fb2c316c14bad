"""Requests byte by byte, right, odd and wrong by RFC 9110 and 9112, and what may be answered."""

from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.http.raw_bodies import (
    ALIVE,
    BODY,
    CLOSED,
    GET,
    GONE,
    HOST,
    HOT,
    LAST,
    LENGTH,
    Cases,
    chunks,
    codings,
    lengths,
    refused,
    upgrades,
)
from headwater.serving.api.operations import OPERATIONS

__all__ = ["RawCase", "raw_cases"]

_MUCH = 70_000


class RawCase(NamedTuple):
    """Bytes that are sent at once, after which the sender closes its half of the connection.

    Parameters
    ----------
    name
        What they are.
    sent
        The bytes.
    allowed
        The statuses of all answers, as in ``"200 200"``; each is right. :data:`CLOSED` for none.
    allow
        A method that the answer's ``allow`` names, where it has one.
    """

    name: str
    sent: bytes
    allowed: tuple[str, ...]
    allow: str = ""


def raw_cases() -> Iterator[RawCase]:
    """Yield every case, each under a name of its own."""
    for group, cases in (
        ("method", _methods()),
        ("request line", _request_lines()),
        ("host", _hosts()),
        ("headers", _headers()),
        ("length", lengths()),
        ("coding", codings()),
        ("chunks", chunks()),
        ("upgrade", upgrades()),
        ("connection", _connections()),
    ):
        for name, sent, *allowed in cases:
            yield RawCase(f"{group}: {name}", sent, tuple(allowed))
    yield from _not_allowed()


def _methods() -> Cases:
    path = b" /v2/health/live HTTP/1.1\r\n" + HOST + b"\r\n"
    for method in (b"GET", b"HEAD"):
        yield method.decode(), method + path, "200"
    for method in (b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"PROPFIND"):
        yield method.decode(), method + path, "405"
    for method in (b"FOO", b"get", b"GETT", b"G@T", b"", b"GET\x00", b"M-SEARCHX"):
        yield repr(method), method + path, *refused("405", "501")
    yield "CONNECT", b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n", *refused("405")
    yield "PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", *refused()


def _request_lines() -> Cases:
    rest = HOST + b"\r\n"
    for line in (
        b"GET / HTTP/1.2",
        b"GET / HTTP/2.0",
        b"GET / HTTP/3",
        b"GET / HTTP/0.9",
        b"GET / HTTP/11",
    ):
        yield line.decode(), line + b"\r\n" + rest, *refused("505", "404")
    for line in (
        b"GET /",
        b"GET",
        b"",
        b"GET / http/1.1",
        b"GET / HTTP/1.1 x",
        b"GET / HTP/1.1",
        b"GET  / HTTP/1.1x",
        b" GET / HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"/ GET HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET ? HTTP/1.1",
        b"GET v2 HTTP/1.1",
    ):
        yield repr(line), line + b"\r\n" + rest, *refused("404")
    for target in (
        b"/v2/health/live?",
        b"/v2/health/live?a=b&a=c",
        b"/%76%32/health/live",
        b"/v2/health/live?%zz",
        b"http://localhost/v2/health/live",
        b"HTTP://LOCALHOST:80/v2/health/live",
    ):
        yield target.decode(), b"GET " + target + b" HTTP/1.1\r\n" + rest, "200"
    for target in (
        b"/nothing",
        b"/v2/health/live/",
        b"/v2//health/live",
        b"/..",
        b"/%2e%2e/etc/passwd",
        b"/%00",
        b"/%ff",
        b"/%zz",
        b"/%",
        b"/#a",
        b"/V2/HEALTH/LIVE",
    ):
        yield target.decode(), b"GET " + target + b" HTTP/1.1\r\n" + rest, *refused("404")
    yield "to another host", b"GET http://other.example/v2/health/live HTTP/1.1\r\n" + rest, "403", "400"
    yield "OPTIONS *", b"OPTIONS * HTTP/1.1\r\n" + rest, *refused("200", "204", "404", "405")
    yield "bytes beyond ASCII", b"GET /\xc3\xbc HTTP/1.1\r\n" + rest, *refused("404")
    yield "a long target", b"GET /" + b"a" * _MUCH + b" HTTP/1.1\r\n" + rest, *refused("414", "431")
    yield "an empty line before", b"\r\n" + LAST, "200", "400"
    yield "two empty lines before", b"\r\n\r\n" + LAST, "200", "400"
    yield "only line feeds", LAST.replace(b"\r\n", b"\n"), "200", *refused()
    yield "only returns", LAST.replace(b"\r\n", b"\r"), *refused()
    yield "nothing", b"", CLOSED
    yield "half a line", b"GET / HT", *GONE, "400"
    yield "half a head", GET + b"host: loc", *GONE, "400"


def _hosts() -> Cases:
    yield "none", GET + b"\r\n", "400"
    yield "none in HTTP/1.0", b"GET /v2/health/live HTTP/1.0\r\n\r\n", "200"
    yield "two", GET + HOST + b"host: other.example\r\n\r\n", "400"
    yield "the same twice", GET + HOST + HOST + b"\r\n", "400"
    yield "two in HTTP/1.0", b"GET /v2/health/live HTTP/1.0\r\n" + HOST + HOST + b"\r\n", "400"
    yield "two, to a hot route", HOT + HOST + HOST + LENGTH + b"\r\n" + BODY, "400"
    yield "none, to a hot route", HOT + LENGTH + b"\r\n" + BODY, "400"
    for host in (
        b"localhost",
        b"LOCALHOST:8000",
        b"127.0.0.1",
        b"127.0.0.1:1",
        b"[::1]",
        b"[::1]:80",
        b"localhost.",
        b" localhost ",
        b"localhost:",
    ):
        yield repr(host), GET + b"host: " + host + b"\r\n\r\n", "200"
    for host in (b"", b"other.example", b"0.0.0.0", b"localhost.other.example", b"a,b", b"%41"):
        yield repr(host), GET + b"host: " + host + b"\r\n\r\n", "403", "400"
    for host in (
        b"a b",
        b"me@localhost",
        b"localhost/",
        b"http://localhost",
        b"localhost:x",
        b"localhost:80:80",
        b"[::1",
        b"local\\host",
        b"localhost:999999",
        b"lo\xffcal",
        b"localhost?",
        b"localhost, localhost",
    ):
        yield repr(host), GET + b"host: " + host + b"\r\n\r\n", "400"


def _headers() -> Cases:
    start = GET + HOST
    for line in (
        b"x: 1",
        b"x:1",
        b"x:",
        b"x: \t1\t ",
        b"x: \xfc",
        b"X-Long: " + b"a" * 8_000,
        b"!#$%&'*+-.^_`|~: 1",
        b"accept: */*",
        b"authorization: Bearer x",
        b"cookie: a=b; a=c",
        b"date: never",
    ):
        yield repr(line[:20]), start + line + b"\r\n\r\n", "200"
    for line in (
        b"x : 1",
        b" x: 1",
        b"\tx: 1",
        b": 1",
        b"x",
        b"x\x00: 1",
        b"x: a\x00b",
        b"x: a\rb",
        b"(x): 1",
        b"x y: 1",
        b"\xfc: 1",
        b"x: 1\r\n folded",
        b"x: 1\r\n\tfolded",
        b"x: a\x01b",
        b"x: a\x7fb",
    ):
        yield repr(line), start + line + b"\r\n\r\n", *refused()
    for count, *allowed in ((98, "200"), (99, "200"), (100, "431"), (5_000, "431")):
        yield f"{count + 1} lines", start + b"x: 1\r\n" * count + b"\r\n", *allowed
    yield "a long value", start + b"x: " + b"a" * _MUCH + b"\r\n\r\n", "431"
    yield "a long name", start + b"a" * _MUCH + b": 1\r\n\r\n", "431"
    yield "long lines", start + (b"x: " + b"a" * 1_000 + b"\r\n") * 70 + b"\r\n", "431"
    yield "a very long value", start + b"x: " + b"a" * 3_000_000 + b"\r\n\r\n", "431", CLOSED
    yield (
        "long, to a hot route",
        HOT + HOST + b"x: " + b"a" * _MUCH + b"\r\n" + LENGTH + b"\r\n" + BODY,
        "431",
    )
    yield "a head without end", start + b"x: 1\r\n" * 20_000, "431", CLOSED


def _connections() -> Cases:
    yield "close", LAST, "200"
    yield "close, then another", LAST + ALIVE, "200"
    yield "kept in HTTP/1.0", b"GET /v2/health/live HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", "200"
    for count in (2, 3, 20, 60):
        yield f"{count} at once", ALIVE * count, " ".join(["200"] * count)
    hot = HOT + HOST + LENGTH + b"\r\n" + BODY
    yield "hot ones at once", hot * 10, " ".join(["422"] * 10)
    yield "hot and cold ones at once", (hot + ALIVE) * 5, " ".join(["422 200"] * 5)
    yield "a wrong one after a right one", ALIVE + b"GET / HTTP/1.1\r\nx\r\n\r\n", "200", "200 400"
    yield "a wrong one after a hot one", hot + b"wrong\r\n\r\n", "422", "422 400"
    yield "no host after a right one", ALIVE + GET + b"\r\n", "200", "200 400"
    yield "half a one after a right one", ALIVE + b"GET / HTT", "200", "200 400"
    yield "a right one after a wrong one", b"wrong\r\n\r\n" + ALIVE, "400", CLOSED


def _not_allowed() -> Iterator[RawCase]:
    """Ask each path by a method that it does not take."""
    paths: dict[str, set[str]] = {}
    for row in OPERATIONS:
        paths.setdefault(row.path.replace("{", "").replace("}", "").replace(":any", ""), set()).add(
            row.method
        )
    for path, methods in paths.items():
        (wrong,) = {"DELETE"} - methods
        sent = b"%b %b HTTP/1.1\r\n" % (wrong.encode(), path.encode()) + HOST + b"\r\n"
        for right in sorted(methods):
            yield RawCase(f"{wrong} {path}, which takes {right}", sent, ("405",), right)
