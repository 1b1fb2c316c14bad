"""Reading the newest examples reads the newest files, however many commits lie before them."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from benchmarks.claim import Outcome, at_least, cpu_pairs, fresh_home, say
from benchmarks.models import river_regression
from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.collect import collect
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["measure"]

_BOUND = 20.0
_PAIRS = 5
_ROWS = 1_060  # a twentieth of the labels is still to come at the end
_COMMITS, _SHORT_COMMITS = 1_000, 20
_LATEST = 200  # commits that a label may be behind its prediction
_START = datetime(2024, 1, 1, tzinfo=UTC)
_NAMES = tuple("abcdefgh")
_PIPELINE = Pipeline(
    name="recent",
    task="binary",
    features=tuple(Feature(name, float) for name in _NAMES),
    label=LabelRule(wait="30d"),
    model=river_regression,
    update=Stateful(),
)


def measure(*, short: bool) -> Outcome:
    """Read the last hundredth by offset, and everything, from 1,000 uncompacted commits (ten minutes).

    Every hour 1,060 predictions are recorded and as many labels, half of them of that hour, the others
    up to 200 hours late; each hour is sequenced and collected by itself, as an hourly flow would, with
    compaction put off. Each reading opens the table anew.
    """
    commits = _SHORT_COMMITS if short else _COMMITS
    with fresh_home() as settings:
        log = FeatureLog(_PIPELINE, settings, SimulatedClock(_START), compact_from_files=10**9)
        _fill(log, commits)
        stop = log.archive["examples"].stop()
        pairs = cpu_pairs(
            lambda: _read(settings, log, 0, stop),
            lambda: _read(settings, log, stop - stop // 100, stop),
            2 if short else _PAIRS,
        )
        log.close()
        log.database.close()
    return at_least(
        pairs.ratio,
        _BOUND,
        examples=stop,
        commits=commits,
        pairs=pairs.pairs,
        all_s=round(pairs.first_s, 4),
        recent_s=round(pairs.second_s, 4),
    )


def _fill(log: FeatureLog, commits: int) -> None:
    drawn = random.Random(0)
    waiting: list[list[Label]] = [[] for _ in range(commits + _LATEST)]
    with log.sequencer() as sequencer:
        for hour in range(commits):
            _advance(log, hour)
            names = [f"{hour:05}-{i:04}" for i in range(_ROWS)]
            for name in names:
                at = hour if drawn.random() < 0.5 else hour + drawn.randrange(_LATEST)
                waiting[at].append(_label(name, at, drawn))
            with log.one_sync():
                log.record([_prediction(name, hour, drawn) for name in names])
                log.label(waiting[hour])
            collect(log, sequencer)
            if hour % 100 == 99:
                say(f"  {hour + 1} of {commits} commits")


def _advance(log: FeatureLog, hour: int) -> None:
    if isinstance(log.clock, SimulatedClock):
        log.clock.advance_to(_at(hour))


def _at(hour: int) -> datetime:
    return _START + timedelta(hours=hour)


def _prediction(name: str, hour: int, drawn: random.Random) -> Prediction:
    features = {feature: drawn.random() for feature in _NAMES}
    return Prediction(id=name, features=dict(features), output=0.5, served_at=_at(hour))


def _label(name: str, hour: int, drawn: random.Random) -> Label:
    return Label(prediction_id=name, value=drawn.random() < 0.5, known_at=_at(hour))


def _read(settings: Settings, log: FeatureLog, start: int, stop: int) -> Iterator[None]:
    """Read a range through a log opened anew."""
    opened = FeatureLog(_PIPELINE, settings, log.clock, log.database)
    found = opened.examples(start, stop)
    opened.close()
    if found.height != stop - start:
        raise ValueError(f"{found.height} examples read of {stop - start}")
    yield
