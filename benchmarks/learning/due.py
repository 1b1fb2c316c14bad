"""Examples under `due` are those of the truth held back by hand, whatever comes when, and is edited."""

import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import groupby

import polars as pl
from examples.flights.data import load

from benchmarks.claim import Outcome, at_least, fresh_home, say
from benchmarks.learning.due_cost import figures
from benchmarks.learning.due_streams import (
    Served,
    Told,
    Truth,
    by_hand,
    moment,
    random_rules,
    random_stream,
)
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

__all__ = ["measure"]

_STREAMS, _SHORT_STREAMS = 400, 2
_RECORDS, _SHORT_RECORDS = 120, 30
_RULES = 4
_FLIGHTS, _SHORT_FLIGHTS = 20_000, 60
_FLIGHT_RULES = (
    LabelRule(due="ends", most="1d"),
    LabelRule(due="due_at", most="6h", timeout=False),
)


def measure(*, short: bool) -> Outcome:
    """Sequence random streams and 20,000 flights, which are due at their scheduled arrival.

    The rule is edited in between, each time by another process's log; batches have random sizes, and
    only a part of what is due is sequenced at a time. The figures of the guide are made beside it.
    """
    told: dict[str, int] = {"streams": 0, "examples": 0, "edits": 0, "wrong": 0}
    with fresh_home() as settings:
        database = Database(settings.operational_url)
        for seed in range(_SHORT_STREAMS if short else _STREAMS):
            drawn = random.Random(seed)
            rules = random_rules(drawn, _RULES)
            stream = random_stream(drawn, _SHORT_RECORDS if short else _RECORDS, _RULES)
            _compare(settings, database, f"stream-{seed}", stream, rules, drawn, told)
            if seed % 100 == 99:
                say(f"  {seed + 1} streams, {told['wrong']} wrong")
        flights = _flights(_SHORT_FLIGHTS if short else _FLIGHTS)
        _compare(settings, database, "flights", flights, _FLIGHT_RULES, random.Random(0), told)
        costs = figures(settings, database, short=short)
        database.close()
    right = 1.0 - told["wrong"] / told["streams"]
    return at_least(right, 1.0, **told, flights=len(flights) // 2, costs=costs)


def _compare(
    settings: Settings,
    database: Database,
    name: str,
    stream: Sequence[Served | Told],
    rules: Sequence[LabelRule],
    drawn: random.Random,
    told: dict[str, int],
) -> None:
    found, edits = _sequenced(settings, database, name, stream, rules, drawn)
    times = [one.emitted_us for one in found]
    right = found == by_hand(stream, rules) and times == sorted(times)
    if not right:
        say(f"  {name}: not what was expected")
    told["streams"] += 1
    told["examples"] += len(found)
    told["edits"] += edits
    told["wrong"] += not right


def _sequenced(
    settings: Settings,
    database: Database,
    name: str,
    stream: Sequence[Served | Told],
    rules: Sequence[LabelRule],
    drawn: random.Random,
) -> tuple[list[Truth], int]:
    """Record a stream and sequence it in parts; another log begins where the rule changes."""
    clock, edits, rule = SimulatedClock(moment(stream[0].at_us)), 0, 0
    log = FeatureLog(_pipeline(name, rules[rule]), settings, clock, database)
    for part in _parts(stream, drawn):
        for now_rule, records in groupby(part, key=_rule_of):
            if now_rule not in (None, rule):
                rule, edits = now_rule, edits + 1
                log.close()
                log = FeatureLog(_pipeline(name, rules[rule]), settings, clock, database)
            with log.one_sync():
                for record in records:
                    clock.advance_to(moment(record.at_us))
                    if isinstance(record, Served):
                        log.record([_prediction(record)])
                    else:
                        log.label([_label(record)])
        with log.sequencer(batch_entries=drawn.choice([1, 2, 7, 5_000])) as sequencer:
            for _ in range(drawn.randrange(4)):
                sequencer.step()
    clock.advance_to(clock.now() + timedelta(days=2))
    with log.sequencer(batch_entries=drawn.choice([3, 5_000])) as sequencer:
        sequencer.drain()
    examples = _truths(log)
    log.close()
    return examples, edits


def _rule_of(record: Served | Told) -> int | None:
    """Return the rule under which a prediction comes; any does for a label."""
    return record.rule if isinstance(record, Served) else None


def _parts(stream: Sequence[Served | Told], drawn: random.Random) -> Iterator[Sequence[Served | Told]]:
    start, longest = 0, max(12, len(stream) // 40)
    while start < len(stream):
        stop = start + drawn.randint(1, longest)
        yield stream[start:stop]
        start = stop


def _truths(log: FeatureLog) -> list[Truth]:
    frame = log.examples(0, log.repository.ends()[1])
    rows = frame.select("emitted_at", "prediction_id", "label", "late", "supersedes").iter_rows()
    return [
        Truth(to_us(emitted_at), id_, label, late, supersedes is None)
        for emitted_at, id_, label, late, supersedes in rows
    ]


def _pipeline(name: str, rule: LabelRule) -> Pipeline:
    return Pipeline(
        name=name,
        task="binary",
        features=(
            Feature("x", float),
            Feature("ends", float, nullable=True),
            Feature("until", str, nullable=True),
        ),
        label=rule,
        model=river_regression,
        update=Stateful(),
    )


def _prediction(served: Served) -> Prediction:
    due = None if served.due_us is None else moment(served.due_us)
    return Prediction(
        id=served.id,
        features={
            "x": 0.0,
            "ends": None if served.due_us is None else served.due_us / 1e6,
            "until": None if due is None else due.isoformat(),
        },
        output=0.5,
        served_at=moment(served.at_us),
        due_at=due,
    )


def _label(told: Told) -> Label:
    return Label(prediction_id=told.id, value=told.value, known_at=moment(told.at_us), key=told.key)


def _flights(count: int) -> list[Served | Told]:
    """Return flights, due when they are to land, with their outcomes; the rule is edited half-way."""
    frame = load().filter(pl.col("known_at").is_not_null()).head(count)
    stream: list[Served | Told] = []
    for number, (id_, at, late, known_at, minutes) in enumerate(
        frame.select("id", "served_at", "late", "known_at", "block_minutes").iter_rows()
    ):
        served_us = to_us(at)
        rule = int(count // 3 <= number < 2 * count // 3)
        stream.append(Served(served_us, id_, rule, served_us + round(minutes * 60_000_000)))
        stream.append(Told(to_us(known_at), id_, late, "landed"))
    return sorted(stream, key=lambda record: record.at_us)
