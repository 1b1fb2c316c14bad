"""Streams of predictions and labels under rules that change, and their examples by hand.

What is expected is found prediction by prediction, with nothing of headwater but the declared rules.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from msgspec import UNSET

from headwater.spec.data.label import LabelRule

__all__ = ["START_US", "Served", "Told", "Truth", "by_hand", "moment", "random_rules", "random_stream"]

START_US = 1_700_000_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Served(NamedTuple):
    """A prediction: when it came, under which rule, and the due time that it names, if it names one."""

    at_us: int
    id: str
    rule: int
    due_us: int | None


class Told(NamedTuple):
    """A label, when it came, and its key."""

    at_us: int
    id: str
    value: bool
    key: str


class Truth(NamedTuple):
    """An example as it should be."""

    emitted_us: int
    id: str
    value: bool
    late: bool
    first: bool


Moment = tuple[int, int, int]


def moment(us: int) -> datetime:
    """Return a time of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=us)


def random_rules(drawn: random.Random, count: int) -> list[LabelRule]:
    """Draw rules, of which the last one names due times."""
    rules = [_random_rule(drawn) for _ in range(count - 1)]
    return [*rules, _due_rule(drawn)]


def random_stream(drawn: random.Random, records: int, rules: int) -> list[Served | Told]:
    """Draw a stream in the order of receipt; the rule changes now and then."""
    now_us, rule, stream, ids = START_US, 0, list[Served | Told](), list[str]()
    for number in range(records):
        now_us += drawn.choice([0, 0, 1, _SECOND, 9 * _SECOND, 30 * _SECOND, 200 * _SECOND])
        if drawn.random() < 0.1:
            rule = drawn.randrange(rules)
        if drawn.random() < 0.45:
            due = drawn.choice([None, -(10**13), -1, 0, 1, 7 * _SECOND, 60 * _SECOND, 10**13])
            ids.append(f"p{number}")
            stream.append(Served(now_us, ids[-1], rule, None if due is None else now_us + due))
        else:  # of one that came, or of one that comes later, or never
            id_ = drawn.choice(ids[-8:]) if ids and drawn.random() < 0.8 else f"p{number + 3}"
            stream.append(Told(now_us, id_, drawn.random() < 0.5, f"l{number}"))
    return stream


def by_hand(stream: Sequence[Served | Told], rules: Sequence[LabelRule]) -> list[Truth]:
    """Return the examples of a stream, in order."""
    told: dict[str, list[tuple[int, Told]]] = {}
    for place, record in enumerate(stream):
        if isinstance(record, Told):
            told.setdefault(record.id, []).append((place, record))
    found: list[tuple[Moment, Truth]] = []
    for place, record in enumerate(stream):
        if isinstance(record, Served):
            found += _examples_of(place, record, rules[record.rule], told.get(record.id, []))
    return [truth for _, truth in sorted(found, key=lambda one: one[0])]


def _examples_of(
    place: int, served: Served, rule: LabelRule, told: Sequence[tuple[int, Told]]
) -> list[tuple[Moment, Truth]]:
    """Walk through the labels of one prediction; at equal times records come before what is due."""
    due_us, waits = _due_us(served, rule), rule.due is not UNSET or rule.maturity == "window"
    since_us = served.at_us - _us(rule.wait)
    found: list[tuple[Moment, Truth]] = []

    def emit(moment: Moment, value: bool, *, late: bool) -> None:
        if not found or found[-1][1].value != value:
            found.append((moment, Truth(moment[0], served.id, value, late, not found)))

    early = [one for at, one in told if at < place and one.at_us >= since_us]
    on_time = [(at, one) for at, one in told if at > place and one.at_us <= due_us]
    if not waits:
        if early:
            emit((served.at_us, 0, place), early[-1].value, late=False)
        for at, one in on_time:
            emit((one.at_us, 0, at), one.value, late=False)
    known = [*early, *(one for _, one in on_time)]
    if known and waits:
        emit((due_us, 1, place), known[-1].value, late=False)
    elif not known and isinstance(rule.timeout, bool):
        emit((due_us, 1, place), rule.timeout, late=False)
    for at, one in told:
        if at > place and one.at_us > due_us:
            emit((one.at_us, 0, at), one.value, late=True)
    return found


def _due_us(served: Served, rule: LabelRule) -> int:
    if rule.due is UNSET or rule.most is UNSET:
        return served.at_us + _us(rule.wait)
    latest_us = served.at_us + _us(rule.most)
    if served.due_us is None:
        return latest_us
    return max(served.at_us, min(served.due_us, latest_us))


def _random_rule(drawn: random.Random) -> LabelRule:
    if drawn.random() < 0.5:
        return _due_rule(drawn)
    return LabelRule(
        wait=drawn.choice(["1s", "10s", "1m", "5m"]),
        maturity=drawn.choice(["arrival", "window"]),
        timeout=drawn.choice([None, False, True]),
    )


def _due_rule(drawn: random.Random) -> LabelRule:
    return LabelRule(
        due=drawn.choice(["due_at", "ends", "until"]),
        most=drawn.choice(["1s", "10s", "1m"]),
        timeout=drawn.choice([None, False, True]),
    )


def _us(text: str) -> int:
    return int(text[:-1]) * _UNITS[text[-1]] * _SECOND
