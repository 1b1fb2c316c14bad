"""``headwater serve`` as a user starts it, under a load from another process that never stops."""

import asyncio
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import psutil

from benchmarks.load import SERVER_CORE, pin, pinned
from headwater.infra.settings import Settings

__all__ = ["Loaded", "Running", "await_ready", "loading", "serving"]

_TOY = f"{Path(__file__).parent / 'serving_toy.py'}:pipeline"
_FEATURES = {f"x{n}": n / 20 for n in range(20)}
_PAUSE_S = 0.02
_START_S = 300.0


class Running(NamedTuple):
    """A running service: where it answers, and its first process."""

    address: str
    process: psutil.Process

    @property
    def port(self) -> int:
        """Its port on loopback."""
        return int(self.address.rpartition(":")[2])

    def workers(self) -> list[psutil.Process]:
        """Give its workers."""
        found = []
        for child in self.process.children():
            with suppress(psutil.Error):  # it may just have ended
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
        return found


class Loaded(NamedTuple):
    """What a load has come to.

    Parameters
    ----------
    acknowledged, labelled
        Ids of the predictions and of the labels that were answered with 200.
    failed
        How many requests were not, or found no connection; sent once each where nothing is retried.
    versions
        Answers by version.
    """

    acknowledged: list[str]
    labelled: list[str]
    failed: int
    versions: dict[str, int]


@contextmanager
def serving(settings: Settings, workers: int = 2) -> Iterator[Running]:
    """Start the service of the toy on one core; it must have a version. Ends it with Ctrl-C."""
    command = [sys.executable, "-m", "headwater.cli", "serve", _TOY, "--port", "0"]
    with pinned(SERVER_CORE):
        process = subprocess.Popen(
            [*command, "--workers", str(workers)],
            env=os.environ | {"HEADWATER_HOME": str(settings.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    try:
        line = process.stdout.readline() if process.stdout else ""
        address = re.findall(r"http://\S+?:\d+", line)[0]
        await_ready(address)
        yield Running(address, psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def await_ready(address: str) -> None:
    """Wait until a version serves."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        with suppress(httpx.TransportError):
            if httpx.get(f"{address}/v2/health/ready").is_success:
                return
        time.sleep(_PAUSE_S)
    raise TimeoutError(f"the service at {address} is not ready")


@contextmanager
def loading(to: Running, connections: int, *, retry: bool) -> Iterator[Connection]:
    """Load the service from a process of its own until the block ends.

    Parameters
    ----------
    to
        The service.
    connections
        How many connections, each of which waits for its answers.
    retry
        Whether a request that fails is sent again until it does not.

    Yields
    ------
    Connection
        Gives a :class:`Loaded` to ``recv`` once ``send(None)`` has ended the load.
    """
    mine, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=_load, args=(to.address, connections, retry, theirs), daemon=True
    )
    child.start()
    try:
        mine.recv()  # it has begun
        yield mine
    finally:
        child.kill()
        child.join()


def _load(address: str, connections: int, retry: bool, pipe: Connection) -> None:
    pin(1)
    asyncio.run(_send(address, connections, retry, pipe))


async def _send(address: str, connections: int, retry: bool, pipe: Connection) -> None:
    found, ends = Loaded([], [], 0, {}), asyncio.Event()
    failures = [0]
    tries = 200 if retry else 1

    async def ask(http: httpx.AsyncClient, path: str, body: object) -> dict[str, object] | None:
        content = msgspec.json.encode(body)
        for _ in range(tries):
            with suppress(httpx.TransportError):
                answer = await http.post(path, content=content)
                if answer.is_success:
                    return msgspec.json.decode(answer.content, type=dict[str, object])
            failures[0] += 1
            await asyncio.sleep(_PAUSE_S)
        return None

    async def connection(name: int) -> None:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=address, timeout=30, limits=limits) as http:
            n = 0
            while not ends.is_set():
                n += 1
                id_ = f"{name}-{n}"
                answer = await ask(http, "/predict", {"id": id_, "features": _FEATURES})
                if answer is None:
                    continue
                found.acknowledged.append(id_)
                version = str(answer["version"])
                found.versions[version] = found.versions.get(version, 0) + 1
                told = {"prediction_id": id_, "value": n % 2 == 0, "key": "first"}
                if await ask(http, "/labels", told) is not None:
                    found.labelled.append(id_)

    sending = [asyncio.create_task(connection(name)) for name in range(connections)]
    pipe.send(None)
    await asyncio.to_thread(pipe.recv)
    ends.set()
    await asyncio.gather(*sending)
    pipe.send(found._replace(failed=failures[0]))
