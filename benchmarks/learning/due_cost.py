"""What `arrival`, `window` and `due` cost on a stream whose labels' delay depends on their value.

Stays of one to thirty days are predicted when they begin, twenty times as many in the season as between.
A damage is reported soon; that there was none is known when the stay ends. What it depends on changes
slowly.
"""

import math
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from benchmarks.learning.due_streams import START_US, moment
from benchmarks.models import river_regression
from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock, to_us
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["figures"]

_DAY_US = 86_400_000_000
_DAYS, _SHORT_DAYS = 240, 8
_FEWEST, _MOST, _SHORT_SHARE = 10.0, 200.0, 0.3
_SEASON_DAYS, _CHANGE_DAYS = 60, 300
_WARM = 0.25
_RULES = {
    "arrival": LabelRule(wait="30d"),
    "window": LabelRule(wait="30d", maturity="window"),
    "due": LabelRule(due="due_at", most="30d"),
}


class _Stay(NamedTuple):
    id: str
    at_us: int
    nights: float
    distance: float
    damaged: bool
    known_us: int

    @property
    def due_us(self) -> int:
        return self.at_us + round(self.nights * _DAY_US)

    @property
    def features(self) -> dict[str, float]:
        return {"nights": self.nights / 10.0, "distance": self.distance, "one": 1.0}


def figures(settings: Settings, database: Database, *, short: bool) -> dict[str, dict[str, float]]:
    """Return ROC AUC, and the days since the newest stay that was learned, by maturity.

    Each stay is predicted with what was learned until it began, by the same learner; the first quarter
    is not counted.
    """
    days, share = (_SHORT_DAYS, _SHORT_SHARE) if short else (_DAYS, 1.0)
    stream = list(_stays(random.Random(7), days, share))
    costs = {}
    for name, rule in _RULES.items():
        clock = SimulatedClock(moment(START_US))
        log = FeatureLog(_pipeline(f"stays-{name}", rule), settings, clock, database)
        costs[name] = _prequential(stream, _sequenced(log, clock, stream, days))
        log.close()
    return costs


def _stays(drawn: random.Random, days: int, share: float) -> Iterator[_Stay]:
    day, number = 0.0, 0
    while True:
        season = 0.5 - 0.5 * math.cos(2 * math.pi * day / _SEASON_DAYS)
        day += drawn.expovariate(share * _FEWEST * (_MOST / _FEWEST) ** season)
        if day >= days:
            return
        nights = min(30.0, 1.0 + drawn.expovariate(1 / drawn.choice([3, 18])))
        distance, number = drawn.gauss(0.0, 1.0), number + 1
        weight = math.sin(2 * math.pi * day / _CHANGE_DAYS)
        damaged = drawn.random() < 1 / (1 + math.exp(1.0 + 0.03 * nights - weight * distance))
        at_us = START_US + round(day * _DAY_US)
        reported = 0.1 * drawn.random() if damaged else 1.0
        known_us = at_us + round(reported * nights * _DAY_US)
        yield _Stay(f"s{number}", at_us, nights, distance, damaged, known_us)


def _pipeline(name: str, rule: LabelRule) -> Pipeline:
    return Pipeline(
        name=name,
        task="binary",
        features=(Feature("nights", float), Feature("distance", float)),
        label=rule,
        model=river_regression,
        update=Stateful(),
    )


def _sequenced(
    log: FeatureLog, clock: SimulatedClock, stream: list[_Stay], days: int
) -> list[tuple[int, str, bool]]:
    """Record a stream, sequence it day by day, and return its examples: time, stay, label."""
    events = [(stay.at_us, 0, stay) for stay in stream] + [(stay.known_us, 1, stay) for stay in stream]
    events.sort(key=lambda event: event[:2], reverse=True)
    with log.sequencer() as sequencer:
        for day in range(days + 31):
            end_us, today = START_US + (day + 1) * _DAY_US, []
            while events and events[-1][0] < end_us:
                today.append(events.pop())
            with log.one_sync():
                for at_us, is_label, stay in today:
                    clock.advance_to(moment(at_us))
                    log.label([_label(stay)]) if is_label else log.record([_prediction(stay)])
            clock.advance_to(moment(end_us))
            sequencer.drain()
    frame = log.examples(0, log.repository.ends()[1])
    rows = frame.select("emitted_at", "prediction_id", "label").iter_rows()
    return [(to_us(emitted_at), id_, label) for emitted_at, id_, label in rows]


def _prequential(stream: list[_Stay], learned: list[tuple[int, str, bool]]) -> dict[str, float]:
    by_id = {stay.id: stay for stay in stream}
    model, place, newest_us = _model(), 0, START_US
    scores: list[float] = []
    ages: list[int] = []
    for stay in stream:
        while place < len(learned) and learned[place][0] <= stay.at_us:
            _, id_, label = learned[place]
            model.learn_one(by_id[id_].features, label)
            newest_us, place = max(newest_us, by_id[id_].at_us), place + 1
        scores.append(model.predict_proba_one(stay.features).get(True, 0.5))
        ages.append(stay.at_us - newest_us)
    warm = int(len(stream) * _WARM)
    age = timedelta(microseconds=sum(ages[warm:]) / len(ages[warm:]))
    return {
        "roc_auc": round(_roc_auc(scores[warm:], [stay.damaged for stay in stream[warm:]]), 4),
        "newest_days": round(age / timedelta(days=1), 2),
    }


def _model() -> Any:
    from river import linear_model, optim  # noqa: PLC0415 - takes a second to import

    return linear_model.LogisticRegression(optim.SGD(0.03))


def _roc_auc(scores: list[float], labels: list[bool]) -> float:
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - takes a second to import

    return float(roc_auc_score(labels, scores))


def _prediction(stay: _Stay) -> Prediction:
    return Prediction(
        id=stay.id,
        features={"nights": stay.nights, "distance": stay.distance},
        output=0.5,
        served_at=moment(stay.at_us),
        due_at=moment(stay.due_us),
    )


def _label(stay: _Stay) -> Label:
    return Label(prediction_id=stay.id, value=stay.damaged, known_at=moment(stay.known_us))
