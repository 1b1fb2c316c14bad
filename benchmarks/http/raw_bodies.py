"""Raw requests with a body: its length, coding and chunks, and upgrades; and parts of all of them."""

from collections.abc import Iterator
from typing import Any

__all__ = [
    "ALIVE",
    "BODY",
    "CLOSED",
    "GET",
    "GONE",
    "HOST",
    "HOT",
    "LAST",
    "LENGTH",
    "Cases",
    "chunks",
    "codings",
    "lengths",
    "refused",
    "upgrades",
]

CLOSED = ""
"""What is answered where a connection is closed without an answer."""

Cases = Iterator[tuple[Any, ...]]
"""Of each case its name, its bytes, and what may be answered."""

HOST = b"host: localhost\r\n"
GET = b"GET /v2/health/live HTTP/1.1\r\n"
ALIVE = GET + HOST + b"\r\n"
LAST = GET + HOST + b"connection: close\r\n\r\n"
BODY = b'{"features":{"x":1}}'
LENGTH = b"content-length: %d\r\n" % len(BODY)
HOT, _COLD = b"POST /predict HTTP/1.1\r\n", b"POST /v2/models/served/infer HTTP/1.1\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n"
_UPGRADE = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"

# What is served has no feature "x": that its body is read is seen by what is answered.
_READ, GONE = "422", (CLOSED, "408")


def refused(*more: str) -> tuple[str, ...]:
    """Return what may be answered to a request that is wrong."""
    return ("400", CLOSED, *more)


def lengths() -> Cases:
    """Yield cases of how long the body is said to be."""
    for way, start in (("hot", HOT + HOST), ("cold", _COLD + HOST)):
        yield f"right, {way}", start + LENGTH + b"\r\n" + BODY, _READ
        yield f"none, {way}", start + b"\r\n", _READ, "411"
        yield f"0, {way}", start + b"content-length: 0\r\n\r\n", _READ
        yield f"the same twice, {way}", start + LENGTH * 2 + b"\r\n" + BODY, _READ, *refused()
        yield f"two, {way}", start + LENGTH + b"content-length: 5\r\n\r\n" + BODY, *refused()
        yield f"beside chunks, {way}", start + LENGTH + _CHUNKED + b"\r\n0\r\n\r\n", *refused()
        yield f"chunks beside it, {way}", start + _CHUNKED + LENGTH + b"\r\n0\r\n\r\n", *refused()
        yield f"too long, {way}", start + b"content-length: 99\r\n\r\n" + BODY, *GONE, "400"
        yield (
            f"too short, {way}",
            start + b"content-length: 5\r\n\r\n" + BODY,
            "422 400",
            "422",
            *refused(),
        )
        for length in (
            b"-1",
            b"+5",
            b"5, 5",
            b"5,6",
            b"0x5",
            b"5.0",
            b"5 5",
            b"",
            b"five",
            b"1e1",
            b"9" * 25,
        ):
            yield (
                f"{length!r}, {way}",
                start + b"content-length: " + length + b"\r\n\r\n" + BODY,
                *refused(),
            )
        yield (
            f"beyond the bound, {way}",
            start + b"content-length: 99999999\r\n\r\n" + BODY,
            "413",
            *GONE,
        )


def codings() -> Cases:
    """Yield cases of how the body is coded."""
    body = b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    for way, start in (("hot", HOT + HOST), ("cold", _COLD + HOST)):
        for coding in (b"chunked", b"Chunked", b" chunked "):
            yield f"{coding!r}, {way}", start + b"transfer-encoding: " + coding + b"\r\n" + body, _READ
        for coding in (b"gzip, chunked", b"identity, chunked", b"chunked, chunked"):
            yield (
                f"{coding!r}, {way}",
                start + b"transfer-encoding: " + coding + b"\r\n" + body,
                _READ,
                *refused("501"),
            )
        for coding in (
            b"gzip",
            b"xchunked",
            b"chunked, gzip",
            b"chunked;q=1",
            b'"chunked"',
            b"chunked\x0b",
            b"identity",
        ):
            yield (
                f"{coding!r}, {way}",
                start + b"transfer-encoding: " + coding + b"\r\n" + body,
                *refused("501"),
            )
        yield (
            f"expected, {way}",
            start + LENGTH + b"expect: 100-continue\r\n\r\n" + BODY,
            "100 422",
            "422",
        )
        yield f"expects magic, {way}", start + LENGTH + b"expect: magic\r\n\r\n" + BODY, "422", "417"


def chunks() -> Cases:
    """Yield cases of bodies in chunks."""
    size = b"%x" % len(BODY)
    for way, start in (
        ("hot", HOT + HOST + _CHUNKED + b"\r\n"),
        ("cold", _COLD + HOST + _CHUNKED + b"\r\n"),
    ):
        whole = size + b"\r\n" + BODY + b"\r\n"
        yield f"one, {way}", start + whole + b"0\r\n\r\n", _READ
        yield (
            f"many, {way}",
            start + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
            _READ,
        )
        yield f"zeros before, {way}", start + b"000" + whole + b"000\r\n\r\n", _READ, *refused()
        yield (
            f"extension, {way}",
            start + size + b";a=b\r\n" + BODY + b"\r\n0;c\r\n\r\n",
            _READ,
            *refused(),
        )
        yield (
            f"trailer, {way}",
            start + whole + b"0\r\nx: 1\r\nhost: other.example\r\n\r\n",
            _READ,
            *refused(),
        )
        yield (
            f"many trailers, {way}",
            start + whole + b"0\r\n" + b"x: 1\r\n" * 30_000 + b"\r\n",
            "431",
            CLOSED,
            _READ,
        )
        yield (
            f"a long trailer, {way}",
            start + whole + b"0\r\nx: " + b"a" * 3_000_000 + b"\r\n\r\n",
            "431",
            CLOSED,
            _READ,
        )
        yield f"a long extension, {way}", start + size + b";" + b"a" * 3_000_000, "431", "400", CLOSED
        for wrong in (
            b"-1\r\n",
            b"0x5\r\n",
            b"g\r\n",
            b"\r\n",
            b" 5\r\n",
            b"5 \r\n",
            b"f" * 17 + b"\r\n",
            b"5\nhello",
        ):
            yield f"{wrong!r}, {way}", start + wrong + b"hello\r\n0\r\n\r\n", *refused("422", "413")
        yield f"no end, {way}", start + whole, *GONE, "400"
        yield f"no line after, {way}", start + size + b"\r\n" + BODY + b"0\r\n\r\n", *refused()


def upgrades() -> Cases:
    """Yield cases of requests that ask for another protocol."""
    chunks = _CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    for way, start in (("hot", HOT + HOST), ("cold", _COLD + HOST)):
        yield f"h2c, {way}", start + _UPGRADE + LENGTH + b"\r\n" + BODY, _READ
        yield f"h2c in chunks, {way}", start + _UPGRADE + chunks, _READ
        yield (
            f"h2c, then another, {way}",
            start + _UPGRADE + LENGTH + b"\r\n" + BODY + LAST,
            f"{_READ} 200",
        )
        yield (
            f"TLS, {way}",
            start + b"connection: upgrade\r\nupgrade: TLS/1.2\r\n" + LENGTH + b"\r\n" + BODY,
            _READ,
        )
        yield (
            f"without connection, {way}",
            start + b"upgrade: h2c\r\n" + LENGTH + b"\r\n" + BODY,
            _READ,
        )
        yield (
            f"connection alone, {way}",
            start + b"connection: upgrade\r\n" + LENGTH + b"\r\n" + BODY,
            _READ,
        )
    socket = b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    yield "websocket", GET + HOST + socket + b"\r\n", "200"
    yield "websocket to a hot route", b"GET /predict HTTP/1.1\r\n" + HOST + socket + b"\r\n", "405"
    yield "h2c without a body", GET + HOST + _UPGRADE + b"\r\n" + LAST, "200 200"
    yield "h2c and no host", GET + _UPGRADE + b"\r\n", "400"
    yield "h2c in HTTP/1.0", b"GET /v2/health/live HTTP/1.0\r\n" + _UPGRADE + b"\r\n", "200"
