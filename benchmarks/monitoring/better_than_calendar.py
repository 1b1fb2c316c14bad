"""Stage 4 against a calendar that makes the same number of updates, of the same kinds, evenly spaced."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from examples.electricity import data as electricity
from examples.electricity import pipeline as electricity_pipelines
from examples.flights import data as flights
from examples.flights import pipeline as flights_pipelines

from benchmarks.claim import Outcome, fresh_home, mlflow_database, say, unreported
from benchmarks.imported import context
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.replay.replay import Replay
from headwater.loop.training.update import train
from headwater.spec.pipeline import Pipeline

__all__ = ["measure"]

_DAY = timedelta(days=1)
_DRAWS = 2_000
_WINS = 2
_YOUNG = datetime(2013, 1, 15, 8, tzinfo=UTC)  # live after two weeks of history
_ELEC2 = datetime(1996, 8, 5, tzinfo=UTC)


class _Stream(NamedTuple):
    name: str
    pipeline: Pipeline
    start: datetime
    days: int


class _Played(NamedTuple):
    """What was served with a label, and the updates: days after the start, and whether from scratch."""

    served: pl.DataFrame
    updates: list[tuple[float, bool]]


class _Compared(NamedTuple):
    """ROC AUC of both, and the 95 % interval of the difference."""

    stage4: float
    calendar: float
    low: float
    high: float
    updates: int


def measure(*, short: bool) -> Outcome:
    """Play flights, elec2, and elec2 with changes, through stage 4 and through the calendar (an hour).

    The calendar has as many updates as stage 4 made, refused ones counted, of the same kinds in the same
    order, evenly spaced over the period, without a gate. The interval is by drawing whole days anew
    (Künsch, "The jackknife and the bootstrap for general stationary observations", 1989).
    ``ratio`` is the number of streams on which stage 4 is better with an interval that excludes zero.
    """
    streams = _streams(short=short)
    with ProcessPoolExecutor(2, mp_context=context()) as pool:
        stage4 = list(pool.map(_triggered, streams, [mlflow_database()] * len(streams)))
        for stream, played in zip(streams, stage4, strict=True):
            say(f"  {stream.name}: stage 4 updated on days {[day for day, _ in played.updates]}")
        kinds = [[scratch for _, scratch in played.updates] for played in stage4]
        calendar = list(pool.map(_by_calendar, streams, kinds, [mlflow_database()] * len(streams)))
    found = {
        stream.name: _compare(first, second, stream)
        for stream, first, second in zip(streams, stage4, calendar, strict=True)
    }
    wins = sum(its.low > 0 for its in found.values())
    worse = sum(its.high < 0 for its in found.values())
    return Outcome(
        ratio=float(wins),
        bound=float(_WINS),
        holds=wins >= _WINS and not worse and len(found) == 3,
        numbers={
            "streams": {name: _told(its) for name, its in found.items()},
            "elec2": "measured"
            if len(found) == 3
            else f"not measured: {electricity.VARIABLE} is not set",
        },
    )


def _told(found: _Compared) -> dict[str, float]:
    return {name: round(value, 4) for name, value in found._asdict().items()}


def _streams(*, short: bool) -> list[_Stream]:
    streams = [_Stream("flights", flights_pipelines.by_evidence, _YOUNG, 25 if short else 350)]
    file = os.environ.get(electricity.VARIABLE)
    if file and Path(file).is_file() and not short:
        names = ("elec2", "elec2 changed")
        streams += [_Stream(name, electricity_pipelines.stage4, _ELEC2, 850) for name in names]
    return streams


def _events(stream: _Stream) -> pl.DataFrame:
    if stream.name == "flights":
        events = flights.load().rename({"late": "label"})
    else:
        events = electricity.load()
        events = _changed(events, stream.start) if stream.name == "elec2 changed" else events
    return events.filter(pl.col("served_at") < stream.start + stream.days * _DAY)


def _changed(events: pl.DataFrame, start: datetime) -> pl.DataFrame:
    """Change what the stream means on four days, each time for good.

    Day 110: the clock of the features goes from local time to UTC, ten hours back. Day 290: the price on
    the day's mean comes with the other sign. Day 470: the label says whether the price was down.
    Day 650: demands come in other units.
    """
    at = [pl.col("served_at") >= start + day * _DAY for day in (110, 290, 470, 650)]
    hour, price, label = pl.col("hour_of_day"), pl.col("nsw_price_on_day"), pl.col("label")
    demands = [pl.col(name) for name in ("nsw_demand", "vic_demand", "nsw_demand_on_day")]
    return events.with_columns(
        pl.when(at[0]).then((hour + 14) % 24).otherwise(hour),
        pl.when(at[1]).then(-price).otherwise(price),
        pl.when(at[2]).then(~label).otherwise(label),
        *(pl.when(at[3]).then(demand * 1.5 + 0.2).otherwise(demand) for demand in demands),
    )


def _triggered(stream: _Stream, mlflow: Path) -> _Played:
    with fresh_home(mlflow) as settings:
        return _play(stream, settings, None)


def _by_calendar(stream: _Stream, kinds: Sequence[bool], mlflow: Path) -> _Played:
    with fresh_home(mlflow) as settings:
        return _play(stream, settings, kinds)


def _play(stream: _Stream, settings: Settings, kinds: Sequence[bool] | None) -> _Played:
    events = _events(stream)
    clock = SimulatedClock(events["served_at"][0] - _DAY)
    stop = stream.start + stream.days * _DAY
    updates: list[tuple[float, bool]] = []
    with Bound(unreported(stream.pipeline), settings, clock) as bound:
        replay = Replay(bound, clock, events)
        replay.begin(stream.start)
        if kinds is None:
            for step in replay.run(stream.start, stop, _DAY, update=True):
                if step.updated is not None and step.updated.version is not None:
                    scratch = step.updated.version.parent is None
                    updates.append(((step.stop - stream.start) / _DAY, scratch))
        else:
            _evenly(bound, replay, stream, kinds)
        columns = ("served_at", "role", "output", "label")
        served = bound.log.examples(0, None, columns).filter(pl.col("role") != "imported")
    return _Played(served.select("served_at", "output", "label").sort("served_at"), updates)


def _evenly(bound: Bound, replay: Replay, stream: _Stream, kinds: Sequence[bool]) -> None:
    gap = stream.days * _DAY / (len(kinds) + 1)
    at = stream.start
    for scratch in (*kinds, None):
        for _ in replay.run(at, at + gap, gap, update=False):
            pass
        at += gap
        if scratch is not None:
            train(bound, by="calendar", from_scratch=scratch)


def _compare(first: _Played, second: _Played, stream: _Stream) -> _Compared:
    drawn = np.random.default_rng(0)
    day = ((first.served["served_at"] - stream.start).dt.total_seconds() // 86_400).to_numpy()
    days = int(day.max()) + 1
    counts = drawn.multinomial(days, np.full(days, 1 / days), size=_DRAWS).astype(np.float64)
    both = [_weighted_auc(played.served, day, counts) for played in (first, second)]
    whole = [
        float(_weighted_auc(played.served, day, np.ones((1, days)))[0]) for played in (first, second)
    ]
    low, high = np.quantile(both[0] - both[1], (0.025, 0.975))
    return _Compared(whole[0], whole[1], float(low), float(high), len(first.updates))


def _weighted_auc(served: pl.DataFrame, day: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Give the ROC AUC for each row of counts, which say how often a day is drawn; ties count half."""
    outputs = served["output"].to_numpy()
    order = np.argsort(outputs, kind="stable")
    ranked, label = outputs[order], served["label"].cast(pl.Float64).to_numpy()[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    found = []
    for weights in counts:
        weight = weights[day[order].astype(int)]
        ups = np.add.reduceat(weight * label, starts)
        downs = np.add.reduceat(weight * (1 - label), starts)
        below = np.cumsum(downs) - downs / 2
        found.append((ups * below).sum() / (ups.sum() * downs.sum()))
    return np.array(found)
