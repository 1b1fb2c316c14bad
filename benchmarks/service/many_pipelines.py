"""A hundred pipelines in one service: the memory of each, how soon all are ready, and the idle cost."""

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
from msgspec.structs import replace

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.models import river_regression
from benchmarks.service.serving import Running, serving
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["PIPELINES", "measure"]

_BOUND_MB, _READY_S, _IDLE = 2.0, 20.0, 0.05
_COUNT, _SHORT_COUNT = 100, 3
_ROWS = 100
_IDLE_S, _SHORT_S = 30.0, 2.0
_START = datetime(2026, 1, 1, tzinfo=UTC)
_FIRST = Pipeline(
    name="p0",
    task="binary",
    features=tuple(Feature(f"x{n}", float) for n in range(20)),
    label=LabelRule(wait="1d"),
    model=river_regression,
    update=Stateful(),
)

PIPELINES = {f"p{n}": replace(_FIRST, name=f"p{n}") for n in range(_COUNT)}
"""The pipelines, by their names here."""

globals().update(PIPELINES)  # as `headwater serve FILE:NAME` finds them


class _Found(NamedTuple):
    """What a service of so many pipelines takes."""

    worker_mb: float
    keeper_mb: float
    ready_s: float
    idle: float


def measure(*, short: bool) -> Outcome:
    """Serve one pipeline, then a hundred, in one worker beside one keeper, all published before.

    Memory is the proportional share (PSS) of worker and keeper together; ready is from the start of the
    command until ``/v2/health/ready`` and each model's are 200; idle is the CPU of all processes
    over half a minute in which nothing is asked. ``ratio`` is megabytes a pipeline above the first.
    """
    count = _SHORT_COUNT if short else _COUNT
    with fresh_home(mlflow_database()) as settings:
        for place, name in enumerate(list(PIPELINES)[:count]):
            _train(PIPELINES[name], settings)
            if place % 20 == 19:
                say(f"  {place + 1} pipelines are trained")
        one = _serve(settings, 1, short=short)
        many = _serve(settings, count, short=short)
    each_mb = (many.worker_mb + many.keeper_mb - one.worker_mb - one.keeper_mb) / (count - 1)
    return at_most(
        each_mb,
        _BOUND_MB,
        also=many.ready_s <= _READY_S and many.idle <= _IDLE,
        pipelines=count,
        worker_mb=[round(one.worker_mb, 1), round(many.worker_mb, 1)],
        keeper_mb=[round(one.keeper_mb, 1), round(many.keeper_mb, 1)],
        ready_s=[round(one.ready_s, 1), round(many.ready_s, 1)],
        idle_cores=[round(one.idle, 4), round(many.idle, 4)],
    )


def _serve(settings: Settings, count: int, *, short: bool) -> _Found:
    references = [f"{Path(__file__)}:{name}" for name in list(PIPELINES)[:count]]
    began_s = time.monotonic()
    with serving(settings, 1, references) as to:
        _await_all(to, count)
        ready_s = time.monotonic() - began_s
        time.sleep(2.0)  # what begins once is not idle
        seconds = _SHORT_S if short else _IDLE_S
        before_s = _cpu_s(to.process)
        time.sleep(seconds)
        idle = (_cpu_s(to.process) - before_s) / seconds
        worker_mb = sum(_pss_mb(worker) for worker in to.workers())
        keeper_mb = sum(_pss_mb(one) for one in _keepers(to.process))
    found = _Found(worker_mb, keeper_mb, ready_s, idle)
    say(f"  {count} pipelines: {found}")
    return found


def _await_all(to: Running, count: int) -> None:
    with httpx.Client(base_url=to.address, timeout=60) as client:
        for name in list(PIPELINES)[:count]:
            while client.get(f"/v2/models/{name}/ready").status_code != 200:
                time.sleep(0.02)


def _train(pipeline: Pipeline, settings: Settings) -> None:
    history = []
    for row in range(_ROWS):
        at = _START + timedelta(minutes=row)
        seen = {f"x{n}": (row * n) % 7 / 7 for n in range(20)}
        prediction = Prediction(id=f"past-{row}", features=seen, output=0.5, served_at=at)
        history.append((prediction, Label(prediction_id=f"past-{row}", value=row % 2 == 0, known_at=at)))
    with Bound(pipeline, settings, SimulatedClock(_START + timedelta(days=7))) as bound:
        bound.log.import_history(history)
        collect(bound.log)
        train(bound)


def _keepers(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children():
        with suppress(psutil.Error):
            if "headwater.serving.keeper" in child.cmdline():
                found += [child, *child.children(recursive=True)]
    return found


def _cpu_s(process: psutil.Process) -> float:
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            times = one.cpu_times()
            total += times.user + times.system
    return total


def _pss_mb(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) / 1e6
