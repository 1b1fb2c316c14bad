"""Stage 4 notices an abrupt change by the second mature window that lies wholly after it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from examples.flights.data import load
from examples.flights.pipeline import by_evidence

from benchmarks.claim import Outcome, at_least, fresh_home, mlflow_database, say, unreported
from benchmarks.imported import context
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.decision.decide import decide
from headwater.loop.decision.execute import carry_out
from headwater.loop.replay.replay import Replay
from headwater.monitoring.measure.scores import as_logged, score
from headwater.spec.duration import duration

__all__ = ["CHANGES", "measure"]

_SEEDS, _SHORT_SEEDS = 100, 1
_BOUND = 0.95
_WINDOWS = 2
_HARM = 0.05
_HISTORY_DAYS, _SHORT_HISTORY = 30, 5
_MOST_DAYS, _SHORT_DAYS = 50, 15
_DAY = timedelta(days=1)
_YEAR = datetime(2013, 1, 1, 8, tzinfo=UTC)

_late = pl.col("label")
CHANGES: dict[str, Callable[[pl.Expr], list[pl.Expr]]] = {
    "the label says on time": lambda new: [pl.when(new).then(~_late).otherwise(_late).alias("label")],
    "delays with the other sign": lambda new: [
        pl.when(new).then(-pl.col(name)).otherwise(pl.col(name)).alias(name)
        for name in ("origin_delay", "carrier_delay")
    ],
}
"""What happens at once, to all that is served from then on."""


class _Case(NamedTuple):
    """Which change, when the pipeline goes live, and when the change comes."""

    change: str
    start: datetime
    at: datetime

    def changed(self, events: pl.DataFrame) -> pl.DataFrame:
        return events.with_columns(CHANGES[self.change](pl.col("served_at") >= self.at))


class _Reacted(NamedTuple):
    """Which change, the mature windows wholly after it when a decision fired, and why it fired."""

    change: str
    windows: int | None
    reason: str
    before: int
    drawn: int = 1


def measure(*, short: bool) -> Outcome:
    """Change the stream at a moment drawn by each of a hundred seeds (half an hour).

    A seed draws the day of the year on which the pipeline goes live, after a month of history, and the
    moment of the change, in the second or third week; the changes take turns. It draws again where the
    change costs the champion less than 0.05 of ROC AUC in the two weeks after it, against the same
    flights without it: in summer one delay says little of the next, and their sign matters little. A
    reaction is a decision that fires before a third mature window wholly after the change is there.
    ``before`` counts the decisions that fired before the change.
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
        drawn=sum(r.drawn for r in found),
    )


def _react(seed: int, short: bool, mlflow: Path) -> _Reacted:
    for drawn, case in enumerate(_cases(seed, short), 1):
        with fresh_home(mlflow) as settings:
            found = _play(case, short, settings)
        if found is not None:
            say(f"  seed {seed}, {case.change}: window {found.windows}, {found.reason}")
            return found._replace(drawn=drawn)
    raise AssertionError("cases do not end")


def _cases(seed: int, short: bool) -> Iterator[_Case]:
    drawn = np.random.default_rng(seed)
    name = list(CHANGES)[seed % len(CHANGES)]
    first = _SHORT_HISTORY if short else _HISTORY_DAYS
    while True:
        start = _YEAR + _DAY * int(drawn.integers(first, 365 - _MOST_DAYS))
        yield _Case(name, start, start + timedelta(seconds=int(drawn.integers(7 * 86_400, 21 * 86_400))))


def _play(case: _Case, short: bool, settings: Settings) -> _Reacted | None:
    """Play one case; None where the change does no harm."""
    begin = case.start - _DAY * (_SHORT_HISTORY if short else _HISTORY_DAYS)
    stop = case.start + _DAY * (_SHORT_DAYS if short else _MOST_DAYS)
    events = load().rename({"late": "label"}).drop_nulls("label")
    events = events.filter(pl.col("served_at").is_between(begin, stop))
    window = duration(by_evidence.monitoring.span or "7d")
    clock = SimulatedClock(begin - _DAY)
    after: set[datetime] = set()
    before = 0
    with Bound(unreported(by_evidence), settings, clock) as bound:
        replay = Replay(bound, clock, case.changed(events))
        replay.begin(case.start)
        if not short and _harm(case, bound, events) < _HARM:
            return None
        for _ in replay.run(case.start, stop, window, update=False):
            decision = decide(bound)
            mature = decision.evidence.mature
            if mature is not None and mature.start >= case.at:
                after.add(mature.start)
            if decision.fired and mature is not None and mature.stop > case.at:
                return _Reacted(case.change, len(after), decision.reason, before)
            if decision.fired:
                before += 1
                carry_out(bound, decision.id, by="replay")
            if len(after) > _WINDOWS:
                break
    return _Reacted(case.change, None, "nothing said", before)


def _harm(case: _Case, bound: Bound, events: pl.DataFrame) -> float:
    """Say what the change costs the first champion in the two weeks after it."""
    champion = bound.registry.champion()
    if champion is None:
        raise AssertionError("it has begun")
    learner = bound.registry.store.learner(champion)
    after = events.filter(pl.col("served_at").is_between(case.at, case.at + 14 * _DAY))
    metric = by_evidence.metrics[0]

    def value(rows: pl.DataFrame) -> float:
        outputs = as_logged(learner.predict(rows.select(by_evidence.feature_names)))
        return score("binary", (metric,), outputs, rows["label"])[metric]

    return value(after) - value(case.changed(after))
