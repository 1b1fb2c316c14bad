"""A server in a process of its own, pinned to one core, and a load on it from another."""

import asyncio
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from headwater.infra.settings import Settings
from headwater.spec.pipeline import Pipeline

__all__ = ["Measured", "Server", "load", "noop_app", "pin", "served_app", "server"]

_SERVER_CORE, _LOAD_CORE = 0, 1


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
    """A running server: its port and its process."""

    port: int
    process: psutil.Process


def noop_app(_settings: Settings) -> ASGIApp:
    """Make a plain Starlette application that answers a POST with an empty object."""

    async def noop(_request: Request) -> Response:
        return Response(b"{}", media_type="application/json")

    return Starlette(routes=[Route("/predict", noop, methods=["POST"])])


def served_app(pipeline: Pipeline) -> Callable[[Settings], ASGIApp]:
    """Give what makes the service of a pipeline."""

    def make(settings: Settings) -> ASGIApp:
        from headwater.serving.app import create_app  # noqa: PLC0415 - in the server's process

        return create_app([pipeline], settings)

    return make


def pin(core: int) -> None:
    """Keep this process on a core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


@contextmanager
def server(make: Callable[[Settings], ASGIApp], settings: Settings) -> Iterator[Server]:
    """Run an application on uvicorn (uvloop, httptools) in one process on the first core."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1_024)
    listening.set_inheritable(True)
    spawn = multiprocessing.get_context("fork")
    child = spawn.Process(target=_run, args=(make, settings, listening), daemon=True)
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
    before = to.process.cpu_times()
    started_s = time.perf_counter()
    latencies, failed = asyncio.run(_send(to.port, bodies, connections, rate, path))
    wall_s = time.perf_counter() - started_s
    after = to.process.cpu_times()
    cpu_s = after.user - before.user + after.system - before.system
    return Measured(len(latencies), failed, cpu_s, latencies, wall_s)


def _run(make: Callable[[Settings], ASGIApp], settings: Settings, listening: socket.socket) -> None:
    pin(_SERVER_CORE)
    config = uvicorn.Config(
        make(settings),
        loop="uvloop",
        http="httptools",
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
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
    ).encode()
    began = asyncio.get_running_loop().time()

    async def connection(first: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        failed = 0
        for place in range(first, len(bodies), connections):
            body = bodies[place]
            if rate is not None:
                due = began + place / rate
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            else:
                due = asyncio.get_running_loop().time()
            writer.write(head + b"%d\r\n\r\n" % len(body) + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            start = answer.lower().index(b"content-length: ") + 16
            await reader.readexactly(int(answer[start : answer.index(b"\r", start)]))
            failed += not answer.startswith(b"HTTP/1.1 200")
            latencies.append((asyncio.get_running_loop().time() - due) * 1e3)
        writer.close()
        return failed

    failures = await asyncio.gather(*(connection(n) for n in range(connections)))
    return latencies, sum(failures)
