"""Learning through a durable log, with offsets and labels joined, costs little more than learning.

River's own progressive validation keeps nothing: no record, no join, no order, no way back. It sees the
same rows with the same delays of their labels.
"""

import gc
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import polars as pl
from examples.flights.data import FEATURES, load

from benchmarks.claim import Outcome, at_least, cpu_pairs, fresh_home, say
from benchmarks.models import river_regression
from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.learners.learner import Learner, Schema
from headwater.learners.wrap import wrap
from headwater.monitoring.measure.scores import score
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import FeatureValue, Label, Prediction
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["measure"]

_BOUND = 0.5
_PAIRS = 5
_SHORT_ROWS = 3_000
_WARM_ROWS = 100
_TURN_ROWS = 2_000
_HOUR = timedelta(hours=1)
_NUMBERS = tuple(feature for feature in FEATURES if feature.dtype == "float")
_PIPELINE = Pipeline(
    name="speed",
    task="binary",
    features=_NUMBERS,
    label=LabelRule(wait="2d"),
    model=river_regression,
    update=Stateful(),
)


class _Flight(NamedTuple):
    id: str
    served_at: datetime
    late: bool
    known_at: datetime
    features: dict[str, FeatureValue]


class _Hour(NamedTuple):
    """What a service logs when an hour ends."""

    end: datetime
    served: list[_Flight]
    known: list[_Flight]


_found: dict[str, float] = {}


def measure(*, short: bool) -> Outcome:
    """Compare CPU time on the year's flights, numeric features, nulls as 0 (ten minutes).

    Ours predicts a day's flights before it learns anything of that day, logs the predictions and the
    labels of each hour when it ends, one synced write a day, and then sequences, reads and learns what
    has become an example. Log loss of both is given, as a check: River's predicts with what was known
    the minute before.
    """
    flights = _flights(_SHORT_ROWS if short else None)
    days = _days(flights)
    say(f"  {len(flights):,} flights")
    gc.collect()
    gc.freeze()  # a real stream is not all in memory, for every collection to go through
    _exhaust(_river(flights[:_WARM_ROWS]))
    _exhaust(_ours(_days(flights[:_WARM_ROWS])))
    pairs = cpu_pairs(lambda: _river(flights), lambda: _ours(days), 1 if short else _PAIRS)
    gc.unfreeze()
    return at_least(
        pairs.ratio,
        _BOUND,
        rows=len(flights),
        pairs=pairs.pairs,
        river_us=round(pairs.first_s / len(flights) * 1e6, 1),
        ours_us=round(pairs.second_s / len(flights) * 1e6, 1),
        log_loss_river=round(_found["river"], 4),
        log_loss_ours=round(_found["ours"], 4),
    )


def _exhaust(run: Iterator[None]) -> None:
    deque(run, maxlen=0)


def _flights(rows: int | None) -> list[_Flight]:
    names = [feature.name for feature in _NUMBERS]
    frame = load().drop_nulls("late").with_columns(pl.col(names).fill_null(0.0))
    frame = frame.head(rows or frame.height)
    features = frame.select(names).to_dicts()
    about = frame.select("id", "served_at", "late", "known_at").rows()
    return [
        _Flight(id_, served_at.astimezone(UTC), late, known_at.astimezone(UTC), served)
        for (id_, served_at, late, known_at), served in zip(about, features, strict=True)
    ]


def _days(flights: Sequence[_Flight]) -> list[list[_Hour]]:
    """Give the hours in which something happens, day by day."""
    hours: dict[datetime, _Hour] = {}
    for flight in flights:
        _hour_of(flight.served_at, hours).served.append(flight)
    for flight in sorted(flights, key=attrgetter("known_at")):
        _hour_of(flight.known_at, hours).known.append(flight)
    by_day = groupby((hours[end] for end in sorted(hours)), key=lambda hour: hour.end.date())
    return [list(day) for _, day in by_day]


def _hour_of(moment: datetime, hours: dict[datetime, _Hour]) -> _Hour:
    end = moment.replace(minute=0, second=0, microsecond=0) + _HOUR
    return hours.setdefault(end, _Hour(end, [], []))


def _river(flights: Sequence[_Flight]) -> Iterator[None]:
    """Do what ``progressive_val_score`` does, which goes through this without giving turns."""
    from river import evaluate, metrics  # noqa: PLC0415 - a second to import

    delays = (flight.known_at - flight.served_at for flight in flights)
    moments = (flight.served_at for flight in flights)
    metric = metrics.LogLoss()  # type: ignore[no-untyped-call] # River has no types there
    for _ in evaluate.iter_progressive_val_score(
        ((flight.features, flight.late) for flight in flights),
        river_regression(),
        metric,
        moment=lambda _: next(moments),
        delay=lambda _x, _y: next(delays),
        step=_TURN_ROWS,
    ):
        yield
    _found["river"] = float(metric.get())  # type: ignore[no-untyped-call]


def _ours(days: Sequence[Sequence[_Hour]]) -> Iterator[None]:
    with fresh_home() as settings:
        yield from _play(days, settings)


def _play(days: Sequence[Sequence[_Hour]], settings: Settings) -> Iterator[None]:
    clock = SimulatedClock(days[0][0].end - _HOUR)
    log = FeatureLog(_PIPELINE, settings, clock)
    learner = wrap(
        Schema(_PIPELINE.task, _PIPELINE.features), river_regression, batch_rows=None, seed=0, threads=1
    )
    judged = []
    with log.sequencer() as sequencer:
        start = turn = 0
        for day in days:
            with log.one_sync():
                for hour in day:
                    _log(log, clock, hour, learner)
            sequencer.drain()
            judged.append(_learn(log, learner, start))
            start += judged[-1].height
            if start - turn >= _TURN_ROWS:
                turn = start
                yield
    log.close()
    log.database.close()
    outputs = pl.concat(judged)
    scores = score("binary", ("log_loss",), outputs["output"], outputs["label"])
    _found["ours"] = scores["log_loss"]


def _log(log: FeatureLog, clock: SimulatedClock, hour: _Hour, learner: Learner) -> None:
    clock.advance_to(hour.end)
    log.record(
        [
            Prediction(
                id=flight.id,
                features=flight.features,
                output=learner.predict_one(flight.features),
                served_at=flight.served_at,
            )
            for flight in hour.served
        ]
    )
    log.label(
        [
            Label(prediction_id=flight.id, value=flight.late, known_at=flight.known_at)
            for flight in hour.known
        ]
    )


def _learn(log: FeatureLog, learner: Learner, start: int) -> pl.DataFrame:
    examples = log.examples(start, columns=("offset", "features", "label", "output"))
    learner.learn(examples["features"].struct.unnest(), examples["label"])
    return examples.select("output", "label")
