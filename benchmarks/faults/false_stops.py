"""Streams without poison, one with a real break, through the guard of live learning: where it stops."""

import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from examples.electricity.data import VARIABLE
from examples.flights.data import FEATURES
from examples.hurried import live

from benchmarks import models
from benchmarks.imported import context
from headwater.learners.learner import Schema
from headwater.learners.river_learner import RiverLearner
from headwater.loop.training.guard.guarded_learner import GuardedLearner
from headwater.loop.training.guard.learning_guard import LearningGuard
from headwater.spec.data.feature import Feature
from headwater.spec.errors import SchemaError
from headwater.spec.pipeline import Factory, Task

__all__ = ["Stream", "Tally", "played", "streams", "taxi"]

_STEPS = (1, 3, 10, 50, 200, 1_000)
_SHORT_ROWS, _ROWS = 600, 20_000
_ELEC2_ROWS = 45_312
_DAY_ROWS = 400

_CLASSIFIERS: tuple[Factory, ...] = (
    models.river_regression,
    models.river_tree,
    models.river_forest,
    models.river_bayes,
)
_REGRESSORS: tuple[Factory, ...] = (
    models.river_line,
    models.river_leaves,
    models.river_adaptive_leaves,
    models.river_regression_forest,
)


class Stream(NamedTuple):
    """A stream without poison: the columns but the last are features, the last one is the label."""

    name: str
    task: Task
    frame: pl.DataFrame


class Tally(NamedTuple):
    """What the guard made of a stream: where it stopped, and how long it held states back.

    `stops` counts the examples that it stopped at, `first` says what of the first one; `held` counts the
    examples that were learned into states that live learning did not serve, for the time being.
    """

    stream: str
    model: str
    live: bool
    rows: int
    stops: int
    first: str
    held: int


def streams(*, short: bool) -> Iterator[Stream]:
    """Yield the streams that are here; elec2 if ``HEADWATER_ELEC2`` names its file."""
    rows = _SHORT_ROWS if short else _ROWS
    for seed, times in enumerate((3.0, 0.3)):
        yield Stream(f"taxi x {times:g}", "regression", taxi(rows, seed, times))
    numbers = [feature.name for feature in FEATURES if feature.dtype == "float"]
    flights = live.events().filter(pl.col("served_at") >= live.START - timedelta(days=3))
    yield Stream("hurried", "binary", flights.drop_nulls("label").head(rows).select(*numbers, "label"))
    path = os.environ.get(VARIABLE)
    if path and Path(path).is_file():
        raw = pl.read_parquet(path).head(rows if short else _ELEC2_ROWS)
        up = (pl.col("class") == "UP").alias("label")
        yield Stream("elec2", "binary", raw.select(pl.col(pl.Float64), up))


def taxi(rows: int, seed: int, times: float) -> pl.DataFrame:
    """Make rides: minutes by hour and distance, log-normal, one of 200 ten times as long.

    Half-way all of them become so many times as long: a real break.
    """
    rng = np.random.default_rng(seed)
    at = np.arange(rows)
    hour, day = at % _DAY_ROWS / _DAY_ROWS * 24, at // _DAY_ROWS % 7.0
    km = rng.lognormal(1, 0.7, rows)
    rush = 8 * np.exp(-(((hour - 8.5) / 2) ** 2)) + 9 * np.exp(-(((hour - 17.5) / 2.5) ** 2))
    minutes = (km / (18 - rush) * 60 + 2) * rng.lognormal(0, 0.25, rows)
    minutes[rng.random(rows) < 0.005] *= 10
    minutes[rows // 2 :] *= times
    return pl.DataFrame({"hour": hour, "day": day, "km": km, "label": minutes})


def played(*, short: bool) -> list[Tally]:
    """Play each stream through learners of its task, in random steps, live and as flows would."""
    plays = [
        (stream, make, live)
        for stream in streams(short=short)
        for live in (True, False)
        for make in (_REGRESSORS if stream.task == "regression" else _CLASSIFIERS)[: 2 if short else 4]
    ]
    if short:
        return [_play(*one) for one in plays]
    with ProcessPoolExecutor(2, mp_context=context()) as pool:
        return list(pool.map(_play, *zip(*plays, strict=True)))


def _play(stream: Stream, make: Callable[[], object], live: bool) -> Tally:
    features, labels = stream.frame.drop("label"), stream.frame["label"]
    offsets = pl.int_range(len(labels), eager=True)
    kinds = tuple(Feature(name, float, nullable=True) for name in features.columns)
    guard = LearningGuard(stream.task, pl.DataFrame(), pl.Series())
    learner = GuardedLearner(RiverLearner(Schema(stream.task, kinds), make()), guard, waits=live)
    drawn, start, stops, held = random.Random(stream.name), 0, [], 0
    while start < len(labels):
        stop = min(len(labels), start + drawn.choice(_STEPS))
        while start < stop:
            try:
                learner.learn(features[start:stop], labels[start:stop], offsets[start:stop])
            except SchemaError as error:
                if stop - start > 1:
                    stop = start + (stop - start) // 2  # closer to the one at fault
                    continue
                stops.append(f"{start}: {error.what[:150]}")
            held += stop - start if live and learner.jumped() is not None else 0
            start = stop
    first = stops[0] if stops else ""
    return Tally(stream.name, make.__name__, live, len(labels), len(stops), first, held)
