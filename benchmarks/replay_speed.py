"""Learning through a durable log, with offsets and labels joined, costs little more than learning.

River's own progressive validation keeps nothing: no record, no join, no order, no way back. It sees the
same rows with the same delays of their labels.
"""

import gc
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import polars as pl
from examples.flights.data import FEATURES, load

from benchmarks.claim import Outcome, at_least, cpu_pairs, fresh_home, say
from benchmarks.models import river_regression
from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.learners.learner import Learner, Schema
from headwater.learners.wrap import wrap
from headwater.loop.evaluate import score
from headwater.spec.label import LabelRule
from headwater.spec.pipeline import Pipeline
from headwater.spec.records import Label, Prediction
from headwater.spec.update import Stateful

__all__ = ["measure"]

_BOUND = 0.5
_PAIRS = 5
_SHORT_ROWS = 3_000
_WARM_ROWS = 100
_DAY = timedelta(days=1)
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
    served_hour: datetime  # its end
    known_hour: datetime
    features: dict[Any, Any]


class _Event(NamedTuple):
    at: datetime
    is_label: bool
    record: Any


_HOUR_AND_KIND = itemgetter(0, 1)
_SERVED_HOUR = attrgetter("served_hour")
_KNOWN_HOUR = attrgetter("known_hour")

_found: dict[str, float] = {}


def measure(*, short: bool) -> Outcome:
    """Compare CPU time on the year's flights, numeric features, nulls as 0 (ten minutes).

    Ours predicts a day's flights before it learns anything of that day, logs the predictions and the
    labels of each hour when it ends, one synced write a day, and then sequences, reads and learns what
    has become an example. Log loss of both is given, as a check: River's predicts with what was known
    the minute before.
    """
    flights = _flights(_SHORT_ROWS if short else None)
    say(f"  {len(flights):,} flights")
    gc.collect()
    gc.freeze()  # a real stream is not all in memory, for every collection to go through
    _river(flights[:_WARM_ROWS])
    _ours(flights[:_WARM_ROWS])
    pairs = cpu_pairs(lambda: _river(flights), lambda: _ours(flights), 1 if short else _PAIRS)
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


def _flights(rows: int | None) -> list[_Flight]:
    names = [feature.name for feature in _NUMBERS]
    frame = load().drop_nulls("late").head(rows or load().height)
    frame = frame.with_columns(
        pl.col(names).fill_null(0.0),
        served_hour=pl.col("served_at").dt.truncate("1h").dt.offset_by("1h"),
        known_hour=pl.col("known_at").dt.truncate("1h").dt.offset_by("1h"),
    )
    about = ("id", "served_at", "late", "known_at", "served_hour", "known_hour")
    columns = [frame[name].to_list() for name in (*about, *names)]
    return [
        _Flight._make((*row[:6], dict(zip(names, row[6:], strict=True))))
        for row in zip(*columns, strict=True)
    ]


def _river(flights: Sequence[_Flight]) -> None:
    from river import evaluate, metrics  # noqa: PLC0415 - a second to import

    delays = (flight.known_at - flight.served_at for flight in flights)
    moments = (flight.served_at for flight in flights)
    metric = metrics.LogLoss()  # type: ignore[no-untyped-call] # River has no types there
    evaluate.progressive_val_score(
        ((flight.features, flight.late) for flight in flights),
        river_regression(),
        metric,
        moment=lambda _: next(moments),
        delay=lambda _x, _y: next(delays),
    )
    _found["river"] = float(metric.get())  # type: ignore[no-untyped-call]


def _ours(flights: Sequence[_Flight]) -> None:
    with fresh_home() as settings:
        _found["ours"] = _play(flights, settings)


def _play(flights: Sequence[_Flight], settings: Settings) -> float:
    clock = SimulatedClock(flights[0].served_at - _DAY)
    log = FeatureLog(_PIPELINE, settings, clock)
    learner = wrap(
        Schema(_PIPELINE.task, _PIPELINE.features), river_regression, batch_rows=None, seed=0, threads=1
    )
    judged = []
    with log.sequencer() as sequencer:
        start = 0
        for events in _days(flights, learner):
            _log(log, clock, events)
            sequencer.drain()
            judged.append(_learn(log, learner, start))
            start += judged[-1].height
    log.close()
    log.database.close()
    outputs = pl.concat(judged)
    return score("binary", ("log_loss",), outputs["output"], outputs["label"])["log_loss"]


def _days(flights: Sequence[_Flight], learner: Learner) -> Iterator[list[_Event]]:
    """Give each day's predictions and labels in the order in which they happen."""
    by_label = sorted(flights, key=_KNOWN_HOUR)
    served = labelled = 0
    day = flights[0].served_hour
    while labelled < len(by_label):
        day += _DAY
        first, served = served, bisect_right(flights, day, key=_SERVED_HOUR)
        known, labelled = labelled, bisect_right(by_label, day, key=_KNOWN_HOUR)
        events = [*_served(flights[first:served], learner), *_labelled(by_label[known:labelled])]
        yield sorted(events, key=_HOUR_AND_KIND)


def _served(flights: Sequence[_Flight], learner: Learner) -> list[_Event]:
    if not flights:
        return []
    rows = zip(*(flight.features.values() for flight in flights), strict=True)
    frame = pl.DataFrame(dict(zip(_PIPELINE.feature_names, rows, strict=True)))
    return [
        _Event(
            flight.served_hour,
            False,
            Prediction(
                id=flight.id, features=flight.features, output=output, served_at=flight.served_at
            ),
        )
        for flight, output in zip(flights, learner.predict(frame), strict=True)
    ]


def _labelled(flights: Sequence[_Flight]) -> list[_Event]:
    return [
        _Event(
            flight.known_hour,
            True,
            Label(prediction_id=flight.id, value=flight.late, known_at=flight.known_at),
        )
        for flight in flights
    ]


def _log(log: FeatureLog, clock: SimulatedClock, events: Sequence[_Event]) -> None:
    with log.one_sync():
        for (at, is_label), group in groupby(events, key=_HOUR_AND_KIND):
            clock.advance_to(at)
            (log.label if is_label else log.record)([event.record for event in group])


def _learn(log: FeatureLog, learner: Learner, start: int) -> pl.DataFrame:
    examples = log.examples(start, columns=("offset", "features", "label", "output"))
    learner.learn(examples["features"].struct.unnest(), examples["label"])
    return examples.select("output", "label")
