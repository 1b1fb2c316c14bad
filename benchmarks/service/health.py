"""A model that takes seconds and one that hangs cost no other pipeline, nor the service's health."""

import asyncio
import statistics
import time
from array import array
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

import httpx
import msgspec

from benchmarks.bad_models import HARM
from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.service.bad_pipelines import REFERENCES, publish
from benchmarks.service.load import LOAD_CORE, Wire, pinned
from benchmarks.service.serving import Running, serving

__all__ = ["measure"]

_BOUND, _MOST_MS = 3.0, 20.0
_MEASURED_S, _SHORT_S = 30.0, 3.0
_EVERY_S = 0.01
_CONNECTIONS = 3
_LIMIT_S = 300.0


class _Seen(NamedTuple):
    """The latencies of health and of a third pipeline, in milliseconds, and what was not answered."""

    health_ms: "array[float]"
    third_ms: "array[float]"
    failed: int

    def p99(self) -> tuple[float, float]:
        return _p99(self.health_ms), _p99(self.third_ms)


def measure(*, short: bool) -> Outcome:
    """Compare health and a third pipeline alone with the same beside two models at fault.

    One worker has three pipelines. Of one each prediction takes five seconds, of one each hangs, with
    three connections to either that never rest; the third and ``/v2/health/live`` are asked a hundred
    times a second each. It counts from when both have left the loop.
    ``ratio`` is the 99th percentile beside them over that alone, the larger of the two.
    """
    with fresh_home(mlflow_database()) as settings:
        publish(settings)
        with serving(settings, 1, REFERENCES) as to, pinned(LOAD_CORE):
            seconds = _SHORT_S if short else _MEASURED_S
            asyncio.run(_ask(to, _SHORT_S))  # to warm up
            alone = asyncio.run(_ask(to, seconds))
            beside = asyncio.run(_beside_harm(to, seconds))
            isolated = _isolated(to)
    ratio = max(b / a for a, b in zip(alone.p99(), beside.p99(), strict=True))
    worst_ms = max(beside.p99())
    return at_most(
        ratio,
        _BOUND,
        also=worst_ms <= _MOST_MS and not alone.failed + beside.failed,
        p99_alone_ms=[round(one, 2) for one in alone.p99()],
        p99_beside_ms=[round(one, 2) for one in beside.p99()],
        asked=len(beside.health_ms) + len(beside.third_ms),
        failed=alone.failed + beside.failed,
        isolated=isolated,
    )


async def _beside_harm(to: Running, seconds: float) -> _Seen:
    names = list(HARM)
    harm = [
        asyncio.create_task(_harm(to.port, pipeline, names.index(kind) + 1))
        for pipeline, kind in (("first", "takes 5 s"), ("second", "hangs"))
        for _ in range(_CONNECTIONS)
    ]
    until = time.monotonic() + _LIMIT_S
    while len(await asyncio.to_thread(_isolated, to)) < 2:
        if time.monotonic() > until:
            raise TimeoutError("the models at fault stay on the loop")
        await asyncio.sleep(0.1)
    say("  both have left the loop")
    seen = await _ask(to, seconds)
    for task in harm:
        task.cancel()
    return seen


async def _harm(port: int, pipeline: str, act: int) -> None:
    wire = Wire(port)
    body = msgspec.json.encode({"pipeline": pipeline, "features": {"act": float(act), "a": 1.0}})
    while True:
        with suppress(OSError):
            await wire.ask("/predict", body)


async def _ask(to: Running, seconds: float) -> _Seen:
    body = msgspec.json.encode({"pipeline": "third", "features": {"act": 0.0, "a": 1.0}})
    wire = Wire(to.port)
    third_ms, health_ms = array("d"), array("d")
    async with httpx.AsyncClient(base_url=to.address, timeout=_LIMIT_S) as client:

        async def predict() -> bool:
            return (await wire.ask("/predict", body)).status == 200

        async def live() -> bool:
            return (await client.get("/v2/health/live")).status_code == 200

        failed = await asyncio.gather(
            _steadily(live, health_ms, seconds), _steadily(predict, third_ms, seconds)
        )
    wire.close()
    return _Seen(health_ms, third_ms, sum(failed))


async def _steadily(ask: Callable[[], Awaitable[bool]], into_ms: "array[float]", seconds: float) -> int:
    """Ask at a rate; a latency counts from when the question was due. Return how many failed."""
    now, failed = asyncio.get_running_loop().time, 0
    began = now()
    for place in range(int(seconds / _EVERY_S)):
        due = began + place * _EVERY_S
        await asyncio.sleep(max(0.0, due - now()))
        try:
            failed += not await ask()
        except (OSError, httpx.TransportError):
            failed += 1
        into_ms.append((now() - due) * 1e3)
    return failed


def _isolated(to: Running) -> dict[str, dict[str, str]]:
    with suppress(httpx.TransportError):
        found = httpx.get(f"{to.address}/pipelines", timeout=_LIMIT_S).json()
        return {one["pipeline"]: one["isolated"] for one in found if one["isolated"]}
    return {}


def _p99(values: "array[float]") -> float:
    return statistics.quantiles(values, n=100)[98]
