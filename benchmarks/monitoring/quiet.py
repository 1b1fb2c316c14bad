"""Stage 4 is quiet where nothing changes: flights with their days shuffled."""

from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from examples.flights.data import load
from examples.flights.pipeline import by_evidence

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say, unreported
from benchmarks.imported import context
from headwater.infra.clock import SimulatedClock
from headwater.loop.binding import Bound
from headwater.loop.replay.replay import Replay
from headwater.spec.duration import duration

__all__ = ["measure", "shuffled"]

_MOST = 3
_SEEDS = (0, 1)
_WINDOWS, _SHORT_WINDOWS = 150, 2  # of each seed
_HISTORY_DAYS, _SHORT_HISTORY = 60, 4
_BEGIN = datetime(2020, 1, 1, 8, tzinfo=UTC)
_DAY = timedelta(days=1)


class _Heard(NamedTuple):
    """Windows that were judged, the reasons of the updates, and how often the verdict was `act`."""

    windows: int
    updates: list[str]
    acts: int


def measure(*, short: bool) -> Outcome:
    """Play 300 windows of shuffled days, in two streams, and count updates (half an hour).

    Each stream has all days of the year in random order, again and again in another order; each day
    keeps its flights, so rows of a day are alike, and nothing else drifts. Monitoring and triggers are
    those of the example. ``ratio`` is the number of updates asked for.
    """
    with ProcessPoolExecutor(len(_SEEDS), mp_context=context()) as pool:
        rests = [(seed, short, mlflow_database()) for seed in _SEEDS[: 1 if short else None]]
        heard = list(pool.map(_listen, *zip(*rests, strict=True)))
    windows, updates = sum(h.windows for h in heard), [why for h in heard for why in h.updates]
    return at_most(
        float(len(updates)),
        float(_MOST),
        windows=windows,
        acts=sum(h.acts for h in heard),
        reasons=updates,
    )


def shuffled(seed: int, days: int) -> pl.DataFrame:
    """Give so many days of flights from 1 January 2020 on, drawn from the year without regard to order.

    Columns are those that a replay takes.
    """
    flights = load().rename({"late": "label"}).drop_nulls("label")
    day = pl.col("served_at").dt.offset_by("-8h").dt.truncate("1d")
    parts = flights.with_columns(day=day).partition_by("day", maintain_order=True)
    drawn = np.random.default_rng(seed)
    order = [i for _ in range(days // len(parts) + 1) for i in drawn.permutation(len(parts))]
    return pl.concat([_moved(parts[i], place) for place, i in enumerate(order[:days])])


def _moved(part: pl.DataFrame, place: int) -> pl.DataFrame:
    moved = _BEGIN.replace(hour=0) + place * _DAY - part["day"][0]
    return part.drop("day").with_columns(
        pl.col("served_at", "known_at") + moved, id=pl.format("{}-{}", "id", pl.lit(place))
    )


def _listen(seed: int, short: bool, mlflow: Path) -> _Heard:
    windows = _SHORT_WINDOWS if short else _WINDOWS
    history = _SHORT_HISTORY if short else _HISTORY_DAYS
    window = duration(by_evidence.monitoring.span or "7d")
    start = _BEGIN + history * _DAY
    stop = start + (windows + 1) * window  # the last one is mature a window later
    events = shuffled(seed, (stop - _BEGIN) // _DAY + 1)
    clock = SimulatedClock(_BEGIN - _DAY)
    updates, acts, judged = [], 0, 0
    with fresh_home(mlflow) as settings, Bound(unreported(by_evidence), settings, clock) as bound:
        replay = Replay(bound, clock, events)
        replay.begin(start)
        for step in replay.run(start, stop, window, update=True):
            if step.decision is None:
                continue
            judged += 1
            acts += step.decision.evidence.verdict == "act"
            if step.decision.fired:
                updates.append(step.decision.reason)
                say(f"  seed {seed}, window {judged}: {step.decision.reason}")
    return _Heard(judged, updates, acts)
