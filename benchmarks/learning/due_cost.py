"""What `arrival`, `window` and `due` cost on a stream whose labels' delay depends on their value.

Stays of one to thirty days are predicted when they begin. A damage is reported soon; that there was none
is known when the stay ends. New houses come every week and are rented for six weeks.
"""

import math
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

from benchmarks.claim import fresh_home
from benchmarks.learning.due_streams import START_US, moment
from benchmarks.models import river_regression
from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock, to_us
from headwater.infra.settings import Settings
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["figures"]

_DAY_US = 86_400_000_000
_DAYS, _SHORT_DAYS = 240, 12
_STAYS, _SHORT_STAYS = 120, 5
_WARM = 0.25
_EVERY_DAYS, _RENTED_DAYS = 7, 42
_RULES = {
    "arrival": LabelRule(wait="30d"),
    "window": LabelRule(wait="30d", maturity="window"),
    "due": LabelRule(due="due_at", most="30d"),
}


class _Stay(NamedTuple):
    id: str
    at_us: int
    house: str
    nights: float
    damaged: bool
    known_us: int

    @property
    def due_us(self) -> int:
        return self.at_us + round(self.nights * _DAY_US)

    @property
    def features(self) -> dict[str, float]:
        return {self.house: 1.0, "nights": self.nights / 10.0}


def figures(*, short: bool) -> dict[str, dict[str, float]]:
    """Return ROC AUC, and the days since the newest stay that was learned, by maturity.

    Each stay is predicted with what was learned until it began, by the same learner; the first quarter
    is not counted.
    """
    days, stays = (_SHORT_DAYS, _SHORT_STAYS) if short else (_DAYS, _STAYS)
    stream = list(_stays(random.Random(7), days, stays))
    costs = {}
    for name, rule in _RULES.items():
        with fresh_home() as settings:
            learned = _sequenced(settings, rule, stream, days)
        costs[name] = _prequential(stream, learned)
    return costs


def _stays(drawn: random.Random, days: int, a_day: int) -> Iterator[_Stay]:
    tastes: dict[int, float] = {}
    for number in range(days * a_day):
        day = number / a_day
        newest = int(day / _EVERY_DAYS)
        house = drawn.randint(newest - _RENTED_DAYS // _EVERY_DAYS + 1, newest)
        taste = tastes.setdefault(house, drawn.gauss(0.0, 1.2))
        nights = min(30.0, 1.0 + drawn.expovariate(1 / 8))
        damaged = drawn.random() < 1 / (1 + math.exp(1.5 - taste - 0.05 * nights))
        at_us = START_US + round(day * _DAY_US)
        share = 0.3 * drawn.random() if damaged else 1.0
        known_us = at_us + round(share * nights * _DAY_US)
        yield _Stay(f"s{number}", at_us, f"house {house}", nights, damaged, known_us)


def _sequenced(
    settings: Settings, rule: LabelRule, stream: list[_Stay], days: int
) -> list[tuple[int, str, bool]]:
    """Record a stream, sequence it day by day, and return its examples: time, stay, label."""
    pipeline = Pipeline(
        name="stays",
        task="binary",
        features=(Feature("nights", float),),
        label=rule,
        model=river_regression,
        update=Stateful(),
    )
    clock = SimulatedClock(moment(START_US))
    log = FeatureLog(pipeline, settings, clock)
    events = [(stay.at_us, 0, stay) for stay in stream] + [(stay.known_us, 1, stay) for stay in stream]
    events.sort(key=lambda event: event[:2])
    with log.sequencer() as sequencer:
        for day in range(days + 31):
            end_us, today = START_US + (day + 1) * _DAY_US, []
            while events and events[0][0] < end_us and len(today) < len(events):
                today.append(events.pop(0))
            with log.one_sync():
                for at_us, is_label, stay in today:
                    clock.advance_to(moment(at_us))
                    log.label([_label(stay)]) if is_label else log.record([_prediction(stay)])
            clock.advance_to(moment(end_us))
            sequencer.drain()
    frame = log.examples(0, log.repository.ends()[1])
    log.close()
    log.database.close()
    rows = frame.select("emitted_at", "prediction_id", "label").iter_rows()
    return [(to_us(emitted_at), id_, label) for emitted_at, id_, label in rows]


def _prequential(stream: list[_Stay], learned: list[tuple[int, str, bool]]) -> dict[str, float]:
    by_id = {stay.id: stay for stay in stream}
    model, place, newest_us = river_regression(), 0, START_US
    scores: list[float] = []
    ages: list[int] = []
    for stay in stream:
        while place < len(learned) and learned[place][0] <= stay.at_us:
            _, id_, label = learned[place]
            model.learn_one(by_id[id_].features, label)  # type: ignore[attr-defined] # River's
            newest_us, place = max(newest_us, by_id[id_].at_us), place + 1
        scores.append(model.predict_proba_one(stay.features).get(True, 0.5))  # type: ignore[attr-defined] # River's
        ages.append(stay.at_us - newest_us)
    warm = int(len(stream) * _WARM)
    age = timedelta(microseconds=sum(ages[warm:]) / len(ages[warm:]))
    return {
        "roc_auc": round(_roc_auc(scores[warm:], [stay.damaged for stay in stream[warm:]]), 4),
        "newest_days": round(age / timedelta(days=1), 2),
    }


def _roc_auc(scores: list[float], labels: list[bool]) -> float:
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - takes a second to import

    return float(roc_auc_score(labels, scores))


def _prediction(stay: _Stay) -> Prediction:
    return Prediction(
        id=stay.id,
        features={"nights": stay.nights},
        output=0.5,
        served_at=moment(stay.at_us),
        due_at=moment(stay.due_us),
    )


def _label(stay: _Stay) -> Label:
    return Label(prediction_id=stay.id, value=stay.damaged, known_at=moment(stay.known_us))
