"""Raw HTTP: requests byte by byte are answered as the RFCs have it, refused or closed."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.http.raw_cases import RawCase, raw_cases
from benchmarks.service.in_thread import answering
from benchmarks.service.serving_toy import pipeline, publish
from headwater.serving.http.fast_protocol import FastProtocol
from headwater.serving.process.app import create_app

__all__ = ["fault_of", "measure", "statuses"]

_PATIENCE_S = 60.0
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_ALIVE = RawCase("it lives", b"GET /v2/health/live HTTP/1.0\r\n\r\n", ("200",))
_ALLOW = re.compile(rb"\r\nallow: ([^\r]*)\r\n", re.IGNORECASE)


def fault_of(case: RawCase, port: int) -> str | None:
    """Send a case; return what is wrong with what comes, or None.

    Parameters
    ----------
    case
        What is sent, and what may come.
    port
        Of the server, on loopback.
    """
    came = _answers(case.sent, port)
    found = statuses(came, head_only=case.sent.startswith(b"HEAD "))
    if found not in case.allowed:
        allowed = " or ".join(one or "closed" for one in case.allowed)
        return f"{case.name}: {found or 'closed'}, not {allowed}"
    if case.allow:
        allow = _ALLOW.search(came)
        if allow is None or case.allow not in allow[1].decode().split(", "):
            return f"{case.name}: allow is {allow and allow[1]!r}, without {case.allow}"
    return None


def statuses(came: bytes, *, head_only: bool = False) -> str:
    """Return the statuses of answers as they came over a connection; what is no answer reads ``"?"``."""
    found = []
    while came:
        head, _, rest = came.partition(b"\r\n\r\n")
        status = _STATUS.match(head)
        if status is None:
            return " ".join((*found, "?"))
        found.append(status[1].decode())
        length = _LENGTH.search(head + b"\r\n")
        came = rest if length is None or head_only else rest[int(length[1]) :]
    return " ".join(found)


def measure(*, short: bool) -> Outcome:
    """Send every case of :mod:`benchmarks.http.raw_cases` to the service, and to uvicorn alone.

    ``ratio`` is the number of cases that are answered wrongly; an answer of 500 or more is wrong always.
    ``bare`` is that number for the same application on uvicorn's own protocol.

    Source: RFC 9110 and RFC 9112.
    """
    del short  # it takes seconds
    cases = list(raw_cases())
    with _served() as (ours, bare):
        wrong = [fault for case in cases if (fault := fault_of(case, ours)) is not None]
        bare_wrong = sum(fault_of(case, bare) is not None for case in cases)
        lives = fault_of(_ALIVE, ours) is None
    for fault in wrong:
        say(f"  {fault}")
    return at_most(
        float(len(wrong)), 0.0, also=lives, cases=len(cases), wrong=wrong[:20], bare=bare_wrong
    )


@contextmanager
def _served() -> Iterator[tuple[int, int]]:
    """Serve the toy by our protocol and by uvicorn's own; yield both ports."""
    with fresh_home(mlflow_database()) as settings:
        publish(settings)
        with (
            answering(create_app([pipeline], settings), FastProtocol) as ours,
            answering(create_app([pipeline], settings), "httptools") as bare,
        ):
            yield ours, bare


def _answers(sent: bytes, port: int) -> bytes:
    """Send bytes, close that half of the connection, and return what comes until the other ends."""
    parts = []
    with socket.create_connection(("127.0.0.1", port), _PATIENCE_S) as connection:
        with suppress(OSError):  # it may have closed before it has taken all
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while part := connection.recv(65_536):
                parts.append(part)
    return b"".join(parts)
