"""Labels that are due at a time of their own: what says it, when an example comes, what is stored."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select, update
from tests.conftest import START, later
from tests.features.records import drain, seen

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock, to_us
from headwater.infra.settings import Settings
from headwater.infra.store.schema import sequencing_tables, tables
from headwater.loop.collect import collect
from headwater.loop.replay.history import Columns
from headwater.loop.replay.import_history import import_history, preview_import
from headwater.spec.data.feature import BatchFeature, Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import DeclarationError, SchemaError
from headwater.spec.pipeline import Pipeline

SENT = LabelRule(due="due_at", most="3h")
BY_TEXT, BY_NUMBER = replace(SENT, due="city"), replace(SENT, due="x")
Opener = Callable[[LabelRule], FeatureLog]


@pytest.fixture
def opened(pipeline: Pipeline, settings: Settings, clock: SimulatedClock) -> Iterator[Opener]:
    logs: list[FeatureLog] = []

    def opener(rule: LabelRule) -> FeatureLog:
        features = (Feature("x", float, nullable=True), Feature("city", str, nullable=True))
        changed = replace(pipeline, features=features, label=rule)
        logs.append(FeatureLog(changed, settings, clock))
        return logs[-1]

    yield opener
    for log in logs:
        log.close()
        log.database.close()


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def ending(id_: str, hours: float | None, now: datetime = START) -> Prediction:
    """A prediction that names its due time in all three ways."""
    due = None if hours is None else at(hours)
    return Prediction(
        id=id_,
        features={
            "x": None if due is None else due.timestamp(),
            "city": None if due is None else due.astimezone(UTC).isoformat(),
        },
        output=0.5,
        served_at=now,
        due_at=due,
    )


def told(log: FeatureLog, id_: str, value: bool) -> None:
    log.label([Label(prediction_id=id_, value=value, known_at=log.clock.now())])


def emitted(log: FeatureLog) -> dict[str, float]:
    """Hours from the start to the newest example of each prediction."""
    rows = log.examples(columns=("prediction_id", "emitted_at")).iter_rows()
    return {id_: (moment - START) / timedelta(hours=1) for id_, moment in rows}


def open_deadlines(log: FeatureLog) -> list[float]:
    row = sequencing_tables.deadline.c
    with log.database.reading() as connection:
        dues = connection.execute(select(row.due_us).order_by(row.due_us)).scalars().all()
    return [(due_us - to_us(START)) / 3_600_000_000 for due_us in dues]


@pytest.mark.parametrize("rule", [SENT, BY_TEXT, BY_NUMBER], ids=["sent", "text", "number"])
def test_an_example_is_emitted_when_its_truth_is_due(
    opened: Opener, clock: SimulatedClock, rule: LabelRule
) -> None:
    log = opened(rule)
    dues = {"past": -5.0, "now": 0.0, "soon": 0.5, "end": 2.0, "far": 99.0, "null": None}
    log.record([ending(id_, hours) for id_, hours in dues.items()])
    for id_ in dues:
        told(log, id_, True)
    assert drain(log) == 0
    assert open_deadlines(log) == [0.0, 0.0, 0.5, 2.0, 3.0, 3.0]
    later(clock, minutes=31)
    assert drain(log) == 3
    assert open_deadlines(log) == [2.0, 3.0, 3.0]
    told(log, "end", False)  # known before it is due
    told(log, "soon", False)  # late
    later(clock, hours=9)
    drain(log)
    assert open_deadlines(log) == []
    assert emitted(log) == {"past": 0, "now": 0, "soon": 31 / 60, "end": 2, "far": 3, "null": 3}
    frame = log.examples(columns=("prediction_id", "label", "late"))
    assert frame.filter(prediction_id="end").rows() == [("end", False, False)]
    assert frame.filter(prediction_id="soon")["late"].to_list() == [False, True]
    times = log.examples(columns=("emitted_at",))["emitted_at"].to_list()
    assert times == sorted(times)


def test_a_timeout_comes_at_the_due_time(opened: Opener, clock: SimulatedClock) -> None:
    log = opened(replace(SENT, timeout=False))
    log.record([ending("a", 1.0), ending("b", 2.0)])
    later(clock, minutes=90)
    told(log, "b", True)
    later(clock, hours=9)
    drain(log)
    assert seen(log) == [("a", False), ("b", True)]
    assert emitted(log) == {"a": 1, "b": 2}


@pytest.mark.parametrize("batch", [1, 2, 3, 5_000])
def test_an_edit_holds_for_what_comes_and_order_is_that_of_due_times(
    opened: Opener, clock: SimulatedClock, batch: int
) -> None:
    rules = [LabelRule(wait="5h", maturity="window"), SENT, LabelRule(wait="1h", maturity="window")]
    for number, rule in enumerate(rules):
        log = opened(rule)
        hours = clock.now()
        names = [f"{number}{i}" for i in range(3)]
        log.record([ending(id_, 4.0, hours) for id_ in names])
        for id_ in names:
            told(log, id_, True)
        drain(log, batch)
        later(clock, hours=1)
    later(clock, hours=9)
    drain(opened(LabelRule(wait="1s")), batch)
    assert [id_ for id_, _ in seen(log)] == ["20", "21", "22", "10", "11", "12", "00", "01", "02"]
    times = emitted(log)
    assert (times["20"], times["10"], times["00"]) == (3, 4, 5)


def test_equal_due_times_fall_by_position_however_they_are_cut(
    opened: Opener, clock: SimulatedClock
) -> None:
    log = opened(SENT)
    for number in range(9):
        log.record([ending(f"p{number}", 2.0, clock.now())])
        told(log, f"p{number}", True)
        later(clock, minutes=10)
    later(clock, hours=5)
    with log.sequencer(batch_entries=2) as sequencer:
        for number in range(9, 12):  # due at once: after those that wait
            sequencer.step()
            log.record([ending(f"p{number}", 2.0, clock.now())])
            told(log, f"p{number}", True)
        sequencer.drain()
        later(clock, minutes=1)
        sequencer.drain()
    assert [id_ for id_, _ in seen(log)] == [f"p{number}" for number in range(12)]
    times = log.examples(columns=("emitted_at",))["emitted_at"].to_list()
    assert times == sorted(times)


def test_a_label_that_comes_first_is_judged_by_its_predictions_rule(
    opened: Opener, clock: SimulatedClock
) -> None:
    log = opened(LabelRule(wait="9d"))
    told(log, "a", True)
    told(log, "b", True)
    later(clock, hours=2)
    drain(log)
    opened(LabelRule(wait="1h")).record([ending("a", None, clock.now())])
    opened(LabelRule(wait="5h")).record([ending("b", None, clock.now())])
    assert drain(log) == 1
    assert seen(log) == [("b", True)]
    assert log.counts().expired == 1


def test_a_due_time_that_changed_on_the_disk_is_found(opened: Opener) -> None:
    log = opened(SENT)
    log.record([ending("a", 1.0)])
    drain(log)
    table = tables.prediction
    for value in (0, None):
        with log.database.transaction() as connection:
            connection.execute(update(table).values(due_us=value))
        assert log.repository.rows.damaged(0, 1) == [0]


def test_without_a_due_time_the_stored_bytes_are_those_of_before(opened: Opener) -> None:
    log = opened(LabelRule(wait="1h"))
    log.record([replace(ending("a", None), features={"x": 1.0, "city": None})])
    ((*_, payload, _),) = log.inbox.entries_of("a")
    assert payload == (
        b'{"id":"a","features":{"x":1.0,"city":null},"output":0.5,"served_at":"2024-01-01T00:00:00Z"}'
    )


WRONG: list[tuple[Any, str]] = [
    ("soon", "is no ISO time with a zone"),
    ("2024-01-01T00:00:00", "is no ISO time with a zone"),
    ("", "is no ISO time with a zone"),
]


@pytest.mark.parametrize(("text", "what"), WRONG)
def test_a_text_that_is_no_time_is_refused_by_name(
    opened: Opener, tmp_path: Path, text: str, what: str
) -> None:
    log = opened(BY_TEXT)
    wrong = replace(ending("a", None), features={"x": None, "city": text})
    csv = tmp_path / "told.csv"
    csv.write_text(f'id,served_at,label,known_at,x,city\na,2024-01-01T00:00:00Z,,,,"{text}"\n')
    doors: list[Callable[[], object]] = [
        lambda: log.record([wrong]),
        lambda: log.import_history([(wrong, None)]),
        lambda: import_history(log, csv),
        lambda: log.recorder.decode(f'{{"x":null,"city":"{text}"}}'.encode()),
    ]
    for door in doors:
        with pytest.raises(SchemaError) as refused:
            door()
        assert "'city', by which the label is due" in refused.value.what
        assert what in refused.value.what
    assert log.inbox.end() == 0


@pytest.mark.parametrize("wrong", [datetime(2024, 1, 1), "soon"], ids=str)  # noqa: DTZ001 - on purpose
def test_a_sent_time_without_a_zone_is_refused(wrong: Any) -> None:
    with pytest.raises(SchemaError, match="due_at"):
        replace(ending("a", None), due_at=wrong)


def test_an_import_says_when_its_labels_are_due(
    opened: Opener, clock: SimulatedClock, tmp_path: Path
) -> None:
    later(clock, hours=9)
    csv = tmp_path / "stays.csv"
    csv.write_text(
        "id,served_at,label,known_at,x,city,ends\n"
        "a,2024-01-01T00:00:00Z,true,2024-01-01T00:10:00Z,1.0,,2024-01-01T02:00:00Z\n"
        "b,2024-01-01T00:00:00Z,true,2024-01-01T02:10:00Z,1.0,,2024-01-01T01:00:00Z\n"
        "c,2024-01-01T00:00:00Z,true,2024-01-01T00:10:00Z,1.0,,\n"
    )
    log = opened(SENT)
    columns = Columns(due_at="ends")
    late = preview_import(log, csv, columns).late
    assert late is not None
    assert late.prediction_id == "b"
    assert import_history(log, csv, columns) == 6
    collect(log)
    assert emitted(log) == {"a": 2, "b": 2 + 1 / 6, "c": 3}
    assert log.predictions()["due_at"].to_list() == [at(2), at(1), None]
    csv.write_text(csv.read_text().replace("02:00:00Z", "02:00:00").replace("\na,", "\nd,"))
    with pytest.raises(SchemaError, match=r"column 'ends' holds '2024-01-01T02:00:00'"):
        import_history(log, csv, columns)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"due": "x"}, "has no most"),
    ({"most": "1d"}, "goes with due"),
    ({"due": "x", "most": "soon"}, "most='soon' is not a duration"),
    ({"due": "x", "most": "1d", "maturity": "window"}, 'maturity="window" and due'),
    ({"due": "x", "most": "2d", "wait": "1d"}, "wait='1d' is shorter than most='2d'"),
    ({"due": "", "most": "1d"}, "no name of a feature"),
    ({}, "wait='' is not a duration"),
]


@pytest.mark.parametrize(("fields", "what"), REFUSED, ids=str)
def test_a_rule_that_does_not_go_together_is_refused(fields: dict[str, Any], what: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        LabelRule(**fields)
    assert what in refused.value.what


@pytest.mark.parametrize(
    ("due", "what"),
    [("ends", "is no feature"), ("open", "is a bool"), ("until", "is a text that is looked up")],
)
def test_what_cannot_say_a_time_is_refused(pipeline: Pipeline, due: str, what: str) -> None:
    until = BatchFeature("until", "str", table="stays")
    features = (*pipeline.features, Feature("open", bool), until)
    with pytest.raises(DeclarationError, match=what):
        replace(pipeline, features=features, label=LabelRule(due=due, most="1d"))


def test_wait_is_most_where_it_is_left_out() -> None:
    assert (SENT.wait, replace(SENT, wait="9d").wait) == ("3h", "9d")
