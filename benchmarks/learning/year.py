"""Whole years of flights, played through the real log and the real registry, two at a time."""

from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

import polars as pl
from examples.flights.data import load
from examples.flights.pipeline import never, stage2, stage3
from msgspec.structs import replace

from benchmarks.claim import fresh_home, mlflow_database, say
from benchmarks.imported import context
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.replay.replay import Replay
from headwater.loop.training.evaluate import served_scores
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.triggers.schedule import Every

__all__ = ["NEVER", "STAGE2", "STAGE3", "Played", "Variant", "play_all", "steps_of", "table_row"]

_DAY = timedelta(days=1)
_WORKERS = 2
_SCORED = ("role", "output", "label")


class Variant(NamedTuple):
    """A pipeline, and how often it is updated; 0 never.

    Parameters
    ----------
    pipeline
        As declared; two variants of one name are told apart by what else differs.
    every_days
        Days between two updates.
    """

    pipeline: Pipeline
    every_days: int


class Played(NamedTuple):
    """What a variant came to.

    Parameters
    ----------
    roc_auc, log_loss
        Of all that was served after the history.
    updates
        Updates after the first version.
    learned, learned_first
        Examples learned in all, the first version's counted, and by the first version.
    train_cpu_s
        CPU seconds of all learning, the first version's counted.
    """

    roc_auc: float
    log_loss: float
    updates: int
    learned: int
    learned_first: int
    train_cpu_s: float


class _Period(NamedTuple):
    begin: datetime
    start: datetime
    days: int


NEVER = Variant(never, 0)
STAGE2 = Variant(stage2, 1)
STAGE3 = Variant(stage3, 1)

_YEAR = _Period(
    datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 3, 1, 8, tzinfo=UTC), 306
)  # history to the end of February; updates at four in the morning in New York
_SHORT = _Period(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 3, 8, tzinfo=UTC), 3)

_played: dict[tuple[Variant, bool], "Future[Played]"] = {}


def play_all(variants: Sequence[Variant], *, short: bool) -> list[Played]:
    """Play variants through the year after February; what this process has played is not repeated.

    Parameters
    ----------
    variants
        What to play, in which order results are given.
    short
        Three days of January instead.
    """
    for variant in variants:
        if (variant, short) not in _played:
            period = _SHORT if short else _YEAR
            _played[variant, short] = _pool().submit(_play, variant, period, mlflow_database())
    found = []
    for variant in variants:
        found.append(_played[variant, short].result())
        say(f"  {_title(variant)}: {table_row(found[-1])}")
    return found


def steps_of(variant: Variant, *, short: bool) -> int:
    """Count how often a variant learns, its first version counted."""
    days = (_SHORT if short else _YEAR).days
    return -(-days // variant.every_days) if variant.every_days else 1


def table_row(played: Played) -> dict[str, float]:
    """Give the numbers of a table's row, rounded."""
    return {name: round(value, 4) for name, value in played._asdict().items()}


def _title(variant: Variant) -> str:
    pipeline = variant.pipeline
    return f"{pipeline.name} {pipeline.model.__name__} every {variant.every_days} d seed {pipeline.seed}"


@cache
def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(_WORKERS, mp_context=context())


def _play(variant: Variant, period: _Period, mlflow: Path) -> Played:
    """Play one variant; runs in a process of its own."""
    with fresh_home(mlflow) as settings:
        return _play_at(variant, period, settings)


def _play_at(variant: Variant, period: _Period, settings: Settings) -> Played:
    stop = period.start + period.days * _DAY
    every = variant.every_days or period.days
    clock = SimulatedClock(period.begin - _DAY)
    triggers = (Every(f"{variant.every_days}d"),) if variant.every_days else ()
    with Bound(replace(variant.pipeline, triggers=triggers), settings, clock) as bound:
        replay = Replay(bound, clock, _events(stop))
        first = replay.begin(period.start).version
        for _ in replay.run(period.start, stop, every * _DAY, update=variant.every_days > 0):
            pass
        learned = bound.registry.store.versions()
        scores = served_scores(bound.pipeline, bound.log.examples(0, None, _SCORED))
    return Played(
        scores["roc_auc"],
        scores["log_loss"],
        len(learned) - 1,
        sum(version.learned for version in learned),
        first.learned if first else 0,
        sum(version.train_cpu_s for version in learned),
    )


def _events(stop: datetime) -> pl.DataFrame:
    return load().rename({"late": "label"}).filter(pl.col("served_at") < stop)
