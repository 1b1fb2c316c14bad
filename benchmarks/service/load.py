"""A server in a process of its own, pinned to one core, and a load on it from another."""

import asyncio
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal, NamedTuple

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from headwater.infra.settings import Settings
from headwater.serving.http.fast_protocol import FastProtocol
from headwater.spec.pipeline import Pipeline

__all__ = [
    "LOAD_CORE",
    "SERVER_CORE",
    "Measured",
    "Reply",
    "Server",
    "Wire",
    "free_port",
    "load",
    "noop_app",
    "pin",
    "pin_server",
    "pinned",
    "served_app",
    "server",
]

SERVER_CORE, LOAD_CORE = 0, 1
_CORES = sorted(os.sched_getaffinity(0))  # before anything is pinned


class Measured(NamedTuple):
    """What a load came to.

    Parameters
    ----------
    requests, failed
        How many were answered, and how many not with 200.
    cpu_s
        CPU seconds of the server.
    latencies_ms
        Of each request, in milliseconds.
    wall_s
        How long it took.
    """

    requests: int
    failed: int
    cpu_s: float
    latencies_ms: list[float]
    wall_s: float

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the server for each request."""
        return self.cpu_s / self.requests * 1e6

    def percentile(self, share: float) -> float:
        """Give a percentile of the latencies, in milliseconds."""
        return statistics.quantiles(self.latencies_ms, n=1_000)[round(share * 1_000) - 1]


class Server(NamedTuple):
    """A running server: its port and its first process."""

    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        """Give the CPU seconds of all its processes."""
        used = [one.cpu_times() for one in (self.process, *self.process.children(recursive=True))]
        return float(sum(times.user + times.system for times in used))


class Reply(NamedTuple):
    """An answer: its status, and its body."""

    status: int
    content: bytes


class Wire:
    """One HTTP connection that is kept open; made again where it was closed or lost.

    Parameters
    ----------
    port
        Where, on loopback.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, body: bytes) -> Reply:
        """Post JSON.

        Raises
        ------
        ConnectionError
            If there is no connection, or it was lost before the answer was whole.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
        )
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            start = head.index(b"content-length: ") + 16
            content = await reader.readexactly(int(head[start : head.index(b"\r", start)]))
        except (asyncio.IncompleteReadError, OSError) as error:
            self.close()
            raise ConnectionError("the connection was lost") from error
        if b"connection: close" in head:
            self.close()
        return Reply(int(head[9:12]), content)

    def close(self) -> None:
        """Close it; the next question opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def free_port() -> int:
    """Give a port of loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def noop_app(_settings: Settings) -> ASGIApp:
    """Make a plain Starlette application that answers a POST with an empty object."""

    async def noop(_request: Request) -> Response:
        return Response(b"{}", media_type="application/json")

    return Starlette(routes=[Route("/predict", noop, methods=["POST"])])


def served_app(pipeline: Pipeline) -> Callable[[Settings], ASGIApp]:
    """Give what makes the service of a pipeline."""

    def make(settings: Settings) -> ASGIApp:
        from headwater.serving.process.app import create_app  # noqa: PLC0415 - in the server's process

        return create_app([pipeline], settings)

    return make


def pin(core: int) -> None:
    """Keep this process on a core, where there are several, and what it starts from now on."""
    os.sched_setaffinity(0, {_CORES[core % len(_CORES)]})


def pin_server(process: psutil.Process) -> None:
    """Keep a server that has started on its core: all its processes, and what they start from now on."""
    for one in (process, *process.children(recursive=True)):
        for thread in one.threads():
            with suppress(ProcessLookupError):  # it may just have ended
                os.sched_setaffinity(thread.id, {_CORES[SERVER_CORE]})


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this process on a core until the block ends; what it starts there stays on that core."""
    before = os.sched_getaffinity(0)
    pin(core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def server(
    make: Callable[[Settings], ASGIApp],
    settings: Settings,
    http: type[asyncio.Protocol] | Literal["httptools"] = FastProtocol,
) -> Iterator[Server]:
    """Run an application on uvicorn (uvloop, httptools) in one process on the first core.

    Parameters
    ----------
    make, settings
        Makes it, from these.
    http
        The protocol: the service's, or uvicorn's own.
    """
    listening = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    listening.set_inheritable(True)
    spawn = multiprocessing.get_context("fork")
    child = spawn.Process(target=_run, args=(make, settings, listening, http), daemon=True)
    child.start()
    try:
        yield Server(listening.getsockname()[1], psutil.Process(child.pid))
    finally:
        child.terminate()
        child.join()
        listening.close()


def load(
    to: Server,
    bodies: Sequence[bytes],
    connections: int,
    rate: float | None = None,
    path: str = "/predict",
) -> Measured:
    """Send each body once, over so many connections; at a rate a second, or as fast as answers come.

    At a rate, a latency counts from when the request was due, so that a server that stalls is not
    forgiven (no coordinated omission).
    """
    before_s = to.cpu_s()
    started_s = time.perf_counter()
    latencies, failed = asyncio.run(_send(to.port, bodies, connections, rate, path))
    wall_s = time.perf_counter() - started_s
    return Measured(len(latencies), failed, to.cpu_s() - before_s, latencies, wall_s)


def _run(
    make: Callable[[Settings], ASGIApp],
    settings: Settings,
    listening: socket.socket,
    http: type[asyncio.Protocol] | Literal["httptools"],
) -> None:
    pin(SERVER_CORE)
    config = uvicorn.Config(
        make(settings),
        loop="uvloop",
        http=http,
        ws="none",
        proxy_headers=False,
        access_log=False,
        log_level="error",
    )
    uvicorn.Server(config).run(sockets=[listening])


async def _send(
    port: int, bodies: Sequence[bytes], connections: int, rate: float | None, path: str
) -> tuple[list[float], int]:
    latencies: list[float] = []
    now = asyncio.get_running_loop().time
    began = now()

    async def connection(first: int) -> int:
        wire, failed = Wire(port), 0
        for place in range(first, len(bodies), connections):
            due = now()
            if rate is not None:
                due = began + place / rate
                await asyncio.sleep(max(0.0, due - now()))
            failed += (await wire.ask(path, bodies[place])).status != 200
            latencies.append((now() - due) * 1e3)
        wire.close()
        return failed

    failures = await asyncio.gather(*(connection(n) for n in range(connections)))
    return latencies, sum(failures)
