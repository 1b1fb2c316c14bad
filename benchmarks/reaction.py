"""Stage 4 notices an abrupt change by the second mature window that lies wholly after it."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from examples.flights.data import load
from examples.flights.pipeline import by_evidence

from benchmarks.claim import Outcome, at_least, fresh_home, mlflow_database, say
from benchmarks.imported import context
from headwater.infra.clock import SimulatedClock
from headwater.loop.binding import Bound
from headwater.loop.replay import Replay

__all__ = ["CHANGES", "measure"]

_SEEDS, _SHORT_SEEDS = 100, 1
_BOUND = 0.95
_WINDOWS = 2
_HISTORY_DAYS, _SHORT_HISTORY = 30, 5
_MOST_DAYS = 45
_DAY = timedelta(days=1)
_YEAR = datetime(2013, 1, 1, 8, tzinfo=UTC)

_late = pl.col("label")
CHANGES: dict[str, Callable[[pl.Expr], list[pl.Expr]]] = {
    "the label says on time": lambda new: [pl.when(new).then(~_late).otherwise(_late).alias("label")],
    "delays in seconds": lambda new: [
        pl.when(new).then(pl.col(name) * 60).otherwise(pl.col(name)).alias(name)
        for name in ("origin_delay", "carrier_delay")
    ],
    "delays with the other sign": lambda new: [
        pl.when(new).then(-pl.col(name)).otherwise(pl.col(name)).alias(name)
        for name in ("origin_delay", "carrier_delay")
    ],
    "waiting and delays swapped": lambda new: [
        pl.when(new)
        .then(pl.col("origin_delay").fill_null(0.0))
        .otherwise(pl.col("waiting"))
        .alias("waiting"),
        pl.when(new).then(pl.col("waiting")).otherwise(pl.col("origin_delay")).alias("origin_delay"),
    ],
}
"""What happens at once, to all that is served from then on."""


class _Reacted(NamedTuple):
    """Which change, the mature windows wholly after it when a decision fired, and why it fired."""

    change: str
    windows: int | None
    reason: str
    before: int


def measure(*, short: bool) -> Outcome:
    """Change the stream at a moment drawn by each of a hundred seeds (half an hour).

    A seed draws the day of the year on which the pipeline goes live, after a month of history, and the
    moment of the change, in the second or third week; the four changes take turns. A reaction is a
    decision that fires before a third mature window wholly after the change is there. ``before`` counts
    the decisions that fired before the change.
    """
    seeds = range(_SHORT_SEEDS if short else _SEEDS)
    with ProcessPoolExecutor(2, mp_context=context()) as pool:
        rests = [(seed, short, mlflow_database()) for seed in seeds]
        found = list(pool.map(_react, *zip(*rests, strict=True)))
    reacted = [r.windows is not None and r.windows <= _WINDOWS for r in found]
    late = [r.change for r, ok in zip(found, reacted, strict=True) if not ok]
    return at_least(
        sum(reacted) / len(found),
        _BOUND,
        seeds=len(found),
        missed={name: late.count(name) for name in CHANGES},
        by_window={str(n): sum(r.windows == n for r in found) for n in range(_WINDOWS + 1)},
        before=sum(r.before for r in found),
    )


def _react(seed: int, short: bool, mlflow: Path) -> _Reacted:
    drawn = np.random.default_rng(seed)
    history = _SHORT_HISTORY if short else _HISTORY_DAYS
    start = _YEAR + _DAY * int(drawn.integers(history, 365 - _MOST_DAYS))
    change_at = start + timedelta(seconds=int(drawn.integers(7 * 86_400, 21 * 86_400)))
    name = list(CHANGES)[seed % len(CHANGES)]
    stop = start + (_MOST_DAYS if not short else 10) * _DAY
    events = load().rename({"late": "label"}).drop_nulls("label")
    events = events.filter(pl.col("served_at").is_between(start - history * _DAY, stop))
    events = events.with_columns(CHANGES[name](pl.col("served_at") >= change_at))
    clock = SimulatedClock(start - (history + 1) * _DAY)
    after: set[datetime] = set()
    before = 0
    with fresh_home(mlflow) as settings, Bound(by_evidence, settings, clock) as bound:
        replay = Replay(bound, clock, events)
        replay.begin(start)
        for step in replay.run(start, stop, _DAY, update=True):
            decision = step.decision
            if decision is None:
                continue
            mature = decision.evidence.mature
            if mature is not None and mature.start >= change_at:
                after.add(mature.start)
            if decision.fired and step.stop > change_at:
                say(f"  seed {seed}, {name}: window {len(after)}, {decision.reason}")
                return _Reacted(name, len(after), decision.reason, before)
            before += decision.fired
            if len(after) > _WINDOWS:
                break
    say(f"  seed {seed}, {name}: nothing said")
    return _Reacted(name, None, "", before)
