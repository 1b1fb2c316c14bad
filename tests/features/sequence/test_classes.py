"""Labels of classes that are not declared: taken, held back, named by a person, and emitted then."""

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace
from tests.conftest import START, later
from tests.features.records import drain, label, prediction

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import LabelValue
from headwater.spec.errors import ConflictError, DeclarationError, NotFoundError, SchemaError
from headwater.spec.pipeline import Pipeline

HOLD = LabelRule(wait="60m", classes=("red", "blue"), hold=True)


def opened(
    pipeline: Pipeline, home: Settings, clock: SimulatedClock, rule: LabelRule = HOLD
) -> FeatureLog:
    return FeatureLog(replace(pipeline, name="shades", task="multiclass", label=rule), home, clock)


@pytest.fixture
def shades(pipeline: Pipeline, settings: Settings, clock: SimulatedClock) -> Iterator[FeatureLog]:
    log = opened(pipeline, settings, clock)
    yield log
    log.close()
    log.database.close()


def predicted(log: FeatureLog, *ids: str) -> None:
    log.record([replace(prediction(id_), output={"red": 1.0}) for id_ in ids])


def name(log: FeatureLog, told: str, becomes: str | None = None) -> None:
    log.new_classes.name(told, becomes or told, by="ada", reason="a look")


def values(log: FeatureLog) -> list[tuple[str, LabelValue]]:
    return [(row[0], row[1]) for row in log.examples(columns=("prediction_id", "label")).select(
        "prediction_id", "label"
    ).rows()]  # fmt: skip


def states(log: FeatureLog) -> list[tuple[str, int, str | None]]:
    return [(one.name, one.held, one.becomes) for one in log.new_classes.all()]


def test_labels_of_a_new_class_are_held_until_it_is_named(
    shades: FeatureLog, clock: SimulatedClock
) -> None:
    predicted(shades, *"abcd")
    shades.label([label("a", "gren"), label("b", "red"), label("c", "teal"), label("d", "gren")])
    assert drain(shades) == 1
    assert states(shades) == [("gren", 2, None), ("teal", 1, None)]
    assert shades.counts().held == 3
    assert [one.appeared_at for one in shades.new_classes.all()] == [START, START]
    named_at = later(clock, days=3)
    name(shades, "teal")
    name(shades, "gren", "red")
    assert states(shades) == [("gren", 2, "red"), ("teal", 1, "teal")]
    assert drain(shades) == 3
    assert values(shades) == [("b", "red"), ("a", "red"), ("d", "red"), ("c", "teal")]
    assert states(shades) == [("gren", 0, "red"), ("teal", 0, "teal")]
    assert shades.counts().held == 0
    assert shades.examples()["emitted_at"].to_list() == [START, named_at, named_at, named_at]
    assert shades.examples()["late"].to_list() == [False] * 4
    predicted(shades, *"efg")
    shades.label([label("e", "gren"), label("f", "teal"), label("g", "navy")])
    assert drain(shades) == 2
    assert values(shades)[4:] == [("e", "red"), ("f", "teal")]
    assert drain(shades) == 0


def test_what_is_said_of_a_class_must_fit(shades: FeatureLog) -> None:
    predicted(shades, "a")
    shades.label([label("a", "gren")])
    drain(shades)
    for told, becomes, error, words in (
        ("mauve", "mauve", NotFoundError, "no label of class 'mauve'"),
        ("gren", "rd", DeclarationError, "'rd' is no known class; near it: 'red'"),
    ):
        with pytest.raises(error, match=words):
            name(shades, told, becomes)
    name(shades, "gren", "red")
    name(shades, "gren", "red")  # again changes nothing
    with pytest.raises(ConflictError, match="named before: it is 'red'"):
        name(shades, "gren", "blue")
    assert drain(shades) == 1


def test_an_accepted_class_is_one_that_another_may_be(shades: FeatureLog) -> None:
    predicted(shades, "a", "b")
    shades.label([label("a", "teal"), label("b", "tael")])
    drain(shades)
    name(shades, "teal")
    name(shades, "tael", "teal")
    drain(shades)
    assert values(shades) == [("a", "teal"), ("b", "teal")]


def test_a_truth_known_in_between_is_not_overruled_by_one_that_was_held(shades: FeatureLog) -> None:
    predicted(shades, "a", "b")
    shades.label([label("a", "gren"), label("b", "red"), label("b", "gren"), label("a", "red")])
    drain(shades)
    name(shades, "gren", "blue")
    assert drain(shades) == 1  # of b it was the last word, of a it was not
    assert values(shades) == [("b", "red"), ("a", "red"), ("b", "blue")]


def test_a_held_label_may_come_before_its_prediction(shades: FeatureLog, clock: SimulatedClock) -> None:
    shades.label([label("a", "gren"), label("b", "gren")])
    drain(shades)
    predicted(shades, "a")
    assert drain(shades) == 0
    later(clock, minutes=50)
    name(shades, "gren", "red")
    assert drain(shades) == 1
    later(clock, minutes=11)  # from when it was told, not from when it was named
    predicted(shades, "b")
    assert drain(shades) == 0
    assert values(shades) == [("a", "red")]


def test_a_held_label_that_expired_makes_no_example_when_it_is_named(
    shades: FeatureLog, clock: SimulatedClock
) -> None:
    shades.label([label("a", "gren")])
    drain(shades)
    later(clock, minutes=61)
    predicted(shades, "a")
    drain(shades)
    name(shades, "gren", "red")
    assert drain(shades) == 0
    assert shades.counts().expired == 1


@pytest.mark.parametrize("maturity", ["arrival", "window"])
def test_a_held_label_is_no_timeout(
    pipeline: Pipeline, settings: Settings, clock: SimulatedClock, maturity: str
) -> None:
    rule = replace(HOLD, timeout="blue", maturity=maturity)
    log = opened(pipeline, settings, clock, rule)
    predicted(log, "a", "b")
    log.label([label("a", "gren")])
    later(clock, hours=2)
    assert drain(log) == 1
    name(log, "gren", "red")
    assert drain(log) == 1
    assert values(log) == [("b", "blue"), ("a", "red")]
    log.close()
    log.database.close()


def test_a_window_decides_over_a_class_that_is_named_within_it(
    pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> None:
    log = opened(pipeline, settings, clock, replace(HOLD, maturity="window"))
    predicted(log, "a")
    log.label([label("a", "gren")])
    drain(log)
    name(log, "gren", "red")
    assert drain(log) == 0
    later(clock, hours=2)
    assert drain(log) == 1
    assert values(log) == [("a", "red")]
    log.close()
    log.database.close()


def test_an_open_set_takes_a_new_class_and_tells_of_it_once(
    pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> None:
    log = opened(pipeline, settings, clock, LabelRule(wait="60m", classes=("red", "blue"), open=True))
    predicted(log, "a", "b")
    log.label([label("a", "teal"), label("b", "teal")])
    assert drain(log) == 2
    new = log.new_classes.unannounced()
    assert [(one.name, one.held) for one in new] == [("teal", 0)]
    log.new_classes.announced(new)
    assert log.new_classes.unannounced() == []
    with pytest.raises(DeclarationError, match="holds no label"):
        name(log, "teal")
    log.close()
    log.database.close()


def test_what_is_held_stays_held_when_the_set_is_closed(
    pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> None:
    log = opened(pipeline, settings, clock)
    predicted(log, "a")
    log.label([label("a", "gren")])
    drain(log)
    log.close()
    log.database.close()
    closed = opened(pipeline, settings, clock, LabelRule(wait="60m", classes=("red", "blue")))
    with pytest.raises(SchemaError, match="not declared"):
        closed.label([label("a", "gren")])
    assert drain(closed) == 0
    name(closed, "gren", "red")
    assert drain(closed) == 1
    closed.close()
    closed.database.close()


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        (LabelRule(wait="60m", classes=("red", "blue", "gren"), hold=True), None),
        (LabelRule(wait="60m", classes=("red", "blue", "gren")), None),
        (LabelRule(wait="60m"), "gren"),
        (LabelRule(wait="60m", classes=("red", "blue"), open=True), "red"),
    ],
)
def test_what_was_held_is_emitted_when_the_class_is_declared_or_named_under_another_rule(
    pipeline: Pipeline,
    settings: Settings,
    clock: SimulatedClock,
    rule: LabelRule,
    named: str | None,
) -> None:
    log = opened(pipeline, settings, clock)
    predicted(log, "a", "b")
    log.label([label("a", "gren")])
    drain(log)
    log.close()
    log.database.close()
    other = opened(pipeline, settings, clock, rule)
    if named is not None:
        assert drain(other) == 0
        name(other, "gren", named)
    assert drain(other) == 1
    assert values(other) == [("a", named or "gren")]
    assert states(other) == [("gren", 0, named or "gren")]
    assert drain(other) == 0
    other.close()
    other.database.close()


Step = tuple[int, str, str | None]
"""Minutes since the step before, an id, and a class; None for the prediction, ``=x`` names a class."""

steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 20, 59, 61]),
        st.sampled_from("ab"),
        st.sampled_from([None, None, "red", "blue", "x", "x", "y", "=x x", "=x red", "=y blue"]),
    ),
    max_size=12,
)


def play(
    pipeline: Pipeline, rule: LabelRule, script: list[Step], batch: int, drains: set[int]
) -> list[tuple[object, ...]]:
    """Play a script; a naming comes between two drains, so that it counts from there on."""
    with tempfile.TemporaryDirectory() as folder:
        clock = SimulatedClock(START)
        log = opened(pipeline, Settings(home=Path(folder)), clock, rule)
        for i, (minutes, id_, told) in enumerate(script):
            clock.advance_to(clock.now() + timedelta(minutes=minutes))
            if told is None:
                predicted(log, id_)
            elif told.startswith("="):
                drain(log, batch)
                try:
                    name(log, *told[1:].split())
                except (NotFoundError, ConflictError):
                    continue
                drain(log, batch)
            else:
                log.label([label(id_, told, key=str(i))])
            if i in drains:
                drain(log, batch)
        clock.advance_to(clock.now() + timedelta(hours=3))
        drain(log, batch)
        columns = ("offset", "prediction_id", "label", "emitted_at", "supersedes", "late")
        rows = log.examples(columns=columns).rows()
        log.close()
        log.database.close()
        return list(rows)


def newest(script: list[Step], rule: LabelRule) -> dict[str, str]:
    """Say by a plain reading which value each id's newest example carries: names count for all time."""
    now, served, told, names, come = 0, {}, {}, {}, set()  # type: ignore[var-annotated] # plain
    for minutes, id_, value in script:
        now += minutes
        if value is None:
            served.setdefault(id_, now)
        elif value.startswith("="):
            before, becomes = value[1:].split()
            if before in come:
                names.setdefault(before, becomes)
        else:
            told.setdefault(id_, []).append((now, value))
            come |= {value} - {"red", "blue"}
    found = {}
    for id_, at in served.items():
        in_time = [value for t, value in told.get(id_, []) if t >= at - 60]
        known = [names.get(value, value) for value in in_time]
        said = [value for value, raw in zip(known, in_time, strict=True)
                if raw in ("red", "blue") or raw in names]  # fmt: skip
        if said:
            found[id_] = said[-1]
        elif rule.timeout is not None and not any(at - 60 <= t <= at + 60 for t, _ in told.get(id_, [])):
            found[id_] = str(rule.timeout)
    return found


rules = st.builds(
    lambda maturity, timeout: replace(HOLD, maturity=maturity, timeout=timeout),
    st.sampled_from(["arrival", "window"]),
    st.sampled_from([None, "blue"]),
)


@given(script=steps, rule=rules, batch=st.integers(1, 4), drains=st.sets(st.integers(0, 11)))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_and_batches_in_any_order_end_in_the_same_examples(
    pipeline: Pipeline, script: list[Step], rule: LabelRule, batch: int, drains: set[int]
) -> None:
    rows = play(pipeline, rule, script, 5_000, set())
    assert play(pipeline, rule, script, batch, drains) == rows
    assert {str(row[1]): row[2] for row in rows} == newest(script, rule)
    assert [row[0] for row in rows] == list(range(len(rows)))
    emitted = [row[3] for row in rows]
    assert emitted == sorted(emitted)  # type: ignore[type-var] # times
