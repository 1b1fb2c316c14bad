"""``headwater serve`` as a user starts it, under a load from another process that never stops."""

import asyncio
import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import polars as pl
import psutil
from sqlalchemy import select

from benchmarks.service.load import LOAD_CORE, Wire, pin, pin_server
from headwater.infra.settings import Settings
from headwater.infra.store.schema.tables import prediction
from headwater.loop.binding import Bound

__all__ = ["TOY", "Load", "Loaded", "Running", "await_ready", "loading", "serving", "wrong_in_log"]

TOY = f"{Path(__file__).parent / 'serving_toy.py'}:pipeline"
_FEATURES = msgspec.json.encode({f"x{n}": n / 20 for n in range(20)})
_PAUSE_S = 0.02
_TRIES = 3_000
_RENEWED = 50
_START_S = 900.0
_PART = 200_000


class Running(NamedTuple):
    """A running service: where it answers, and its first process."""

    address: str
    process: psutil.Process

    @property
    def port(self) -> int:
        """Its port on loopback."""
        return int(self.address.rpartition(":")[2])

    def workers(self) -> list[psutil.Process]:
        """Give its workers: what was forked for it."""
        found = []
        for child in self.process.children():
            with suppress(psutil.Error):  # it may just have ended
                if "multiprocessing.forkserver" in " ".join(child.cmdline()):
                    found += child.children()
        return found

    def answering(self) -> list[psutil.Process]:
        """Give the workers that hold a connection of a client: those that a load reaches."""
        found = []
        for worker in self.workers():
            with suppress(psutil.Error):
                held = worker.net_connections(kind="tcp")
                if any(one.raddr and one.laddr.port == self.port for one in held):
                    found.append(worker)
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
    due_s, latencies_ms
        When each acknowledged request was due, from the load's beginning, and how long its answer took
        from then on, however often it was sent.
    """

    acknowledged: list[str]
    labelled: list[str]
    failed: int
    versions: dict[str, int]
    due_s: "array[float]"
    latencies_ms: "array[float]"


class Load:
    """A load that another process sends; from :func:`loading`.

    Parameters
    ----------
    pipe, acknowledged
        What the process listens to, and where it counts.
    """

    def __init__(self, pipe: Connection, acknowledged: "Synchronized[int]") -> None:
        self._pipe = pipe
        self._acknowledged = acknowledged

    @property
    def acknowledged(self) -> int:
        """How many predictions and labels were acknowledged so far."""
        return self._acknowledged.value

    def end(self) -> Loaded:
        """End it, and give what it came to."""
        self._pipe.send(None)
        found: Loaded = self._pipe.recv()
        return found


@contextmanager
def serving(
    settings: Settings, workers: int = 2, references: Sequence[str] = (TOY,)
) -> Iterator[Running]:
    """Start the service of pipelines that have a version, on one core; end it with Ctrl-C."""
    command = [sys.executable, "-m", "headwater.cli", "serve", *references, "--port", "0"]
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
        found = Running(address, psutil.Process(process.pid))
        pin_server(found.process)
        yield found
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
def loading(
    to: Running,
    connections: int,
    *,
    retry: bool,
    rate: float | None = None,
    first: int = 0,
    features: bytes = _FEATURES,
) -> Iterator[Load]:
    """Load the service from a process of its own, on its own core, until the block ends.

    Each prediction is followed by its label. A connection is made anew now and then, so that a worker
    that was started later gets its share.

    Parameters
    ----------
    to
        The service.
    connections
        How many connections, each of which waits for its answers.
    retry
        Whether a request that fails is sent again until it does not.
    rate
        How many predictions are due in a second; as fast as answers come where not given.
    first
        Number of the first prediction: those of two loads must differ, or they are the same ones.
    features
        What each prediction has, as JSON.

    Yields
    ------
    Load
        To be ended.
    """
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    acknowledged = spawn.Value("q", 0, lock=True)
    child = spawn.Process(
        target=_load,
        args=(to.port, connections, retry, rate, first, features, theirs, acknowledged),
        daemon=True,
    )
    child.start()
    try:
        mine.recv()  # it has begun
        yield Load(mine, acknowledged)
    finally:
        child.kill()
        child.join()


def wrong_in_log(bound: Bound, begun: int, found: Loaded) -> int:
    """Count the acknowledged predictions and labels that are not in the log exactly once.

    Parameters
    ----------
    bound
        Whose log; it is sequenced to its end.
    begun
        The log's stop before the load began.
    found
        What was acknowledged.
    """
    with bound.log.sequencer() as sequencer:
        sequencer.drain()
    return _not_once(found.acknowledged, _predicted(bound)) + _not_once(
        found.labelled, _labelled(bound, begun)
    )


def _predicted(bound: Bound) -> Iterator[pl.Series]:
    """Give the ids of all sequenced predictions, part by part: millions of them must fit into memory."""
    with bound.database.reading() as connection:
        rows = connection.execution_options(yield_per=_PART).execute(select(prediction.c.id))
        for part in rows.scalars().partitions():
            yield pl.Series(part)


def _labelled(bound: Bound, begun: int) -> Iterator[pl.Series]:
    stop = bound.log.stop()
    for start in range(begun, stop, _PART):
        part = bound.log.examples(start, min(start + _PART, stop), ("prediction_id",))
        yield part["prediction_id"]


def _not_once(acknowledged: list[str], logged: Iterator[pl.Series]) -> int:
    counts = pl.concat([pl.Series(dtype=pl.String), *logged]).value_counts(name="times")
    once = counts.filter(pl.col("times") == 1)[""]
    return len(acknowledged) - int(pl.Series(acknowledged, dtype=pl.String).is_in(once.implode()).sum())


class _Answer(msgspec.Struct):
    version: str


def _load(  # noqa: PLR0917 - what a process is started with
    port: int,
    connections: int,
    retry: bool,
    rate: float | None,
    first: int,
    features: bytes,
    pipe: Connection,
    acknowledged: "Synchronized[int]",
) -> None:
    pin(LOAD_CORE)
    sender = _Sender(port, _TRIES if retry else 1, rate, first, features, acknowledged)
    pipe.send(None)
    pipe.send(asyncio.run(sender.run(connections, pipe)))


class _Sender:
    """Sends predictions, each with its label, and remembers what was acknowledged."""

    def __init__(
        self,
        port: int,
        tries: int,
        rate: float | None,
        first: int,
        features: bytes,
        acknowledged: "Synchronized[int]",
    ) -> None:
        self._port, self._tries, self._rate, self._first = port, tries, rate, first
        self._features = features
        self._count = acknowledged
        self._places = itertools.count(first)
        self._ends = False
        self._found = Loaded([], [], 0, {}, array("d"), array("d"))
        self._failed = 0
        self._began = 0.0

    async def run(self, connections: int, pipe: Connection) -> Loaded:
        self._began = asyncio.get_running_loop().time()
        sending = [asyncio.create_task(self._connection()) for _ in range(connections)]
        await asyncio.to_thread(pipe.recv)
        self._ends = True
        await asyncio.gather(*sending)
        return self._found._replace(failed=self._failed)

    async def _connection(self) -> None:
        wire, now = Wire(self._port), asyncio.get_running_loop().time
        while not self._ends:
            place = next(self._places)
            due = now()
            if self._rate is not None:
                due = self._began + (place - self._first) / self._rate
                await asyncio.sleep(max(0.0, due - now()))
            if place % _RENEWED == 0:
                wire.close()
            await self._pair(wire, place, due)
        wire.close()

    async def _pair(self, wire: Wire, place: int, due: float) -> None:
        id_ = f"r-{place:09}"
        asked = b'{"pipeline":"served","id":"%b","features":%b}' % (id_.encode(), self._features)
        answer = await self._ask(wire, "/predict", asked, due)
        if answer is None:
            return
        version = msgspec.json.decode(answer, type=_Answer).version
        self._found.versions[version] = self._found.versions.get(version, 0) + 1
        self._found.acknowledged.append(id_)
        told = {"pipeline": "served", "prediction_id": id_, "value": place % 2 == 0}
        told["key"] = f"k-{place:09}"
        due = asyncio.get_running_loop().time()
        if await self._ask(wire, "/labels", msgspec.json.encode(told), due) is not None:
            self._found.labelled.append(id_)

    async def _ask(self, wire: Wire, path: str, body: bytes, due: float) -> bytes | None:
        for _ in range(self._tries):
            with suppress(OSError):
                reply = await wire.ask(path, body)
                if reply.status == 200:
                    self._count.value += 1
                    self._found.due_s.append(due - self._began)
                    took_s = asyncio.get_running_loop().time() - due
                    self._found.latencies_ms.append(took_s * 1e3)
                    return reply.content
            self._failed += 1
            await asyncio.sleep(_PAUSE_S)
        return None
