"""Features that changed: older examples are learned as the declaration says, and stay as they were."""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.loop import models
from tests.loop.conftest import Binder

from headwater.infra.clock import SimulatedClock
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.declaring.edit_plan import declare, plan_edits
from headwater.loop.rebuild import rebuild_here
from headwater.loop.training.update import train
from headwater.spec.data.feature import Feature, FeatureKind
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import ChangedError, DeclarationError, SchemaError
from headwater.spec.recipe import OffsetRange
from headwater.spec.updating.update import Stateless

A, B = Feature("a", float), Feature("b", int)
FIRST = (A, B)
Values = dict[str, Any]


def day(bound: Bound, of: Callable[[float, int], Values], rows: int = 40) -> None:
    clock = bound.clock
    assert isinstance(clock, SimulatedClock)
    clock.advance_to(clock.now() + timedelta(days=1))
    now, rng = clock.now(), random.Random(str(clock.now()))
    points = {f"{now:%d}-{i}": (rng.gauss(0, 1), rng.randrange(9)) for i in range(rows)}
    bound.log.record(
        [
            Prediction(id=id_, features=of(*point), output=0.5, served_at=now)
            for id_, point in points.items()
        ]
    )
    bound.log.label(
        [Label(prediction_id=id_, value=a + b > 4, known_at=now) for id_, (a, b) in points.items()]
    )
    collect(bound.log)


def as_first(a: float, b: int) -> Values:
    return {"a": a, "b": b}


EDITS: dict[str, tuple[tuple[FeatureKind, ...], Callable[[float, int], Values], Values]] = {
    "wider": ((A, Feature("b", float)), lambda a, b: {"a": a, "b": b + 0.5}, {}),
    "default": ((A, B, Feature("c", int, default=7)), lambda a, b: {"a": a, "b": b, "c": b}, {"c": 7}),
    "null": (
        (A, B, Feature("c", int, nullable=True)),
        lambda a, b: {"a": a, "b": b, "c": b},
        {"c": None},
    ),
    "fill": (
        (A, B, Feature("c", float, fill=models.half_of_b)),
        lambda a, b: {"a": a, "b": b, "c": b / 2},
        {"c": "half"},
    ),
    "renamed": ((A, Feature("count", int, was="b")), lambda a, b: {"a": a, "count": b}, {}),
    "converted": (
        (A, Feature("b", float, convert=models.tenth)),
        lambda a, b: {"a": a, "b": b / 10},
        {},
    ),
    "removed": ((A,), lambda a, _: {"a": a}, {}),
    "reordered": ((B, A), as_first, {}),
    "renamed and converted": (
        (A, Feature("c", str, was="b", convert=str)),
        lambda a, b: {"a": a, "c": str(b)},
        {},
    ),
}


@pytest.mark.parametrize("archived", [True, False])
@pytest.mark.parametrize("name", EDITS)
def test_older_examples_are_learned_as_declared_and_every_version_rebuilds(
    bind: Binder, name: str, archived: bool
) -> None:
    features, of, _ = EDITS[name]
    first = bind(features=FIRST, update=Stateless(), model=models.any_feature)
    day(first, as_first)
    train(first)
    recorded = first.log.examples()
    assert recorded["features"].struct.fields == ["a", "b"]
    changed = bind(first.clock, features=features, update=Stateless(), model=models.any_feature)  # type: ignore[arg-type]
    assert not plan_edits(changed).refused
    declare(changed, by="test", apply=True)
    day(changed, of)
    if not archived:
        _unarchived(changed, of)
    updated = train(changed)
    assert updated.version is not None
    assert updated.version.number == "2"
    rebuilt = [rebuild_here("line", number, changed.settings) for number in ("1", "2")]
    assert all(one.equal for one in rebuilt)
    assert rebuilt[1].versions[0].learned == changed.log.stop()
    assert changed.log.examples(0, 40).equals(recorded)
    assert first.log.examples(0, 40).equals(recorded)


def _unarchived(bound: Bound, of: Callable[[float, int], Values]) -> None:
    """Sequence more examples that no table has."""
    now = bound.clock.now()
    bound.log.record([Prediction(id="last", features=of(1.0, 1), output=0.5, served_at=now)])
    bound.log.label([Label(prediction_id="last", value=True, known_at=now)])
    with bound.log.sequencer() as sequencer:
        sequencer.drain()


@pytest.mark.parametrize("name", ["default", "null", "fill"])
def test_examples_without_a_feature_have_what_is_declared(bind: Binder, name: str) -> None:
    features, of, expected = EDITS[name]
    first = bind(features=FIRST, model=models.any_feature)
    day(first, as_first)
    changed = bind(first.clock, features=features, model=models.any_feature)  # type: ignore[arg-type]
    day(changed, of)
    rows = changed.log.projected(0, 80)["features"].struct.unnest()
    old = rows["c"][:40].to_list()
    assert old == ([b / 2 for b in rows["b"][:40]] if name == "fill" else [expected["c"]] * 40)
    assert rows["c"][40:].to_list() == [of(0.0, b)["c"] for b in rows["b"][40:]]


def test_a_wider_type_is_learned_on_from_what_was_learned(bind: Binder) -> None:
    features, of, _ = EDITS["wider"]
    first = bind(features=FIRST, model=models.any_feature)
    day(first, as_first)
    train(first)
    changed = bind(first.clock, features=features, model=models.any_feature)  # type: ignore[arg-type]
    plan = plan_edits(changed)
    assert [edit.kind for edit in plan.edits] == ["learned on"]
    assert plan.next_update == "fine-tunes version 1"
    day(changed, of)
    updated = train(changed)
    assert updated.version is not None
    assert updated.version.parent == "1"
    assert rebuild_here("line", "2", changed.settings, from_root=True).equal


def test_a_retyped_feature_has_a_column_of_its_own_for_ever(bind: Binder) -> None:
    features, of, _ = EDITS["converted"]
    first = bind(features=FIRST, model=models.any_feature)
    day(first, as_first)
    changed = bind(first.clock, features=features, model=models.any_feature)  # type: ignore[arg-type]
    day(changed, of)
    both = changed.log.examples()["features"].struct
    assert both.fields == ["a", "b", "b@2"]
    assert both.field("b").null_count() == both.field("b@2").null_count() == 40
    assert changed.log.examples(40)["features"].struct.fields == ["a", "b@2"]
    elsewhere = bind(
        first.clock, features=(A, Feature("b", int, convert=round)), model=models.any_feature
    )  # type: ignore[arg-type]
    with pytest.raises(
        DeclarationError, match=r"'builtins:round' is no function of 'tests\.loop\.models'"
    ):
        plan_edits(elsewhere)


def test_without_a_way_to_convert_a_retype_is_refused_and_nothing_changes(bind: Binder) -> None:
    first = bind(features=FIRST, model=models.any_feature)
    day(first, as_first)
    retyped = bind(first.clock, features=(A, Feature("b", str)), model=models.any_feature)  # type: ignore[arg-type]
    assert plan_edits(retyped).refused
    with pytest.raises(ChangedError, match="convert=str"):
        day(retyped, lambda a, b: {"a": a, "b": str(b)})
    assert first.log.examples().height == 40


def test_a_conversion_that_fails_names_the_offsets(bind: Binder) -> None:
    first = bind(features=(A, Feature("t", str)), model=models.any_feature)
    day(first, lambda a, b: {"a": a, "t": str(b) if b else "none"})
    changed = bind(first.clock, features=(A, Feature("t", int, convert=int)), model=models.any_feature)  # type: ignore[arg-type]
    wrong = [
        i for i, text in enumerate(first.log.examples()["features"].struct.field("t")) if text == "none"
    ]
    with pytest.raises(SchemaError, match=rf"'t' of the examples \[{wrong[0]}, .*convert=int"):
        train(changed)
    spans = [OffsetRange(place, place + 1) for place in wrong]
    changed.registry.quarantine.add(spans, by="test", reason="no number")
    assert train(changed).version is not None


def test_a_feature_that_records_have_no_value_for_is_refused(bind: Binder) -> None:
    first = bind(features=FIRST, model=models.any_feature)
    day(first, as_first)
    for feature in (Feature("c", int), Feature("c", int, was="bb")):
        changed = bind(first.clock, features=(A, B, feature), model=models.any_feature)  # type: ignore[arg-type]
        assert plan_edits(changed).refused
        with pytest.raises(ChangedError, match="'c'"):
            day(changed, lambda a, b: {"a": a, "b": b, "c": b})


@pytest.mark.parametrize("batch_entries", [1, 7, 1_000])
def test_numbers_do_not_depend_on_how_batches_are_cut(bind: Binder, batch_entries: int) -> None:
    clock = None
    for number in range(5):
        more = [Feature(f"n{i}", float, nullable=True) for i in range(number)]
        bound = bind(clock, features=(*FIRST, *more), model=models.any_feature)
        clock = bound.clock  # type: ignore[assignment]
        values = {"a": 1.0, "b": 1} | {one.name: 2.0 for one in more}
        one = Prediction(id=f"p{number}", features=values, output=0.5, served_at=bound.clock.now())
        bound.log.record([one])
    with bound.log.sequencer(batch_entries=batch_entries) as sequencer:
        sequencer.drain()
    assert bound.log.predictions()["recorded_by"].to_list() == [1, 2, 3, 4, 5]
