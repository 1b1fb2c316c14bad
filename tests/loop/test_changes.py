"""A declaration is edited while a version is champion: each door goes on, or says what differs."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import START
from tests.loop import models
from tests.loop.conftest import PIPELINE, Binder, day
from tests.loop.other_models import line, moved, scaled

from headwater.infra.clock import SimulatedClock
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.decision.decide import decide
from headwater.loop.decision.execute import carry_out
from headwater.loop.rebuild import rebuild_here
from headwater.loop.training.catch_up import check_served, fold_from
from headwater.loop.training.plan import check_update
from headwater.loop.training.update import train
from headwater.spec.data.feature import Feature
from headwater.spec.errors import ChangedError
from headwater.spec.updating.triggers.volume import Volume
from headwater.spec.updating.update import Stateless

A, B = Feature("a", float), Feature("b", float)


@pytest.fixture
def first(bind: Binder) -> Bound:
    """One version, and a day that is not learned yet."""
    bound = bind(triggers=(Volume(10),), gate=None)
    day(bound)
    train(bound)
    day(bound, collected=False)
    return bound


def again(bind: Binder, first: Bound, **changes: Any) -> Bound:
    assert isinstance(first.clock, SimulatedClock)
    return bind(first.clock, **({"triggers": (Volume(10),), "gate": None} | changes))


STORED: dict[str, tuple[dict[str, Any], str]] = {
    "gone": ({"features": (A,)}, "feature 'b' was float, is gone"),
    "retyped": ({"features": (A, Feature("b", str))}, "feature 'b' was float, is str"),
    "order": ({"features": (B, A)}, "the features' order was a, b, is b, a"),
    "added": ({"features": (A, B, Feature("c", int))}, "feature 'c' was not there"),
    "task": ({"task": "regression", "model": line}, "task was 'binary', is 'regression'"),
}
DOORS: dict[str, Callable[[Bound], object]] = {
    "collect": lambda bound: collect(bound.log),
    "train": train,
    "decide": decide,
}


@pytest.mark.parametrize("kind", STORED)
def test_every_door_refuses_a_declaration_that_differs_from_the_records(
    bind: Binder, first: Bound, kind: str
) -> None:
    changes, named = STORED[kind]
    changed = again(bind, first, **changes)
    before, champion = first.log.counts(), first.registry.champion()
    for door, enter in DOORS.items():
        with pytest.raises(ChangedError) as refused:
            enter(changed)
        assert named in refused.value.what, door
        assert any(way in refused.value.hint for way in ("put it back", "--fresh", "nullable=True"))
    assert first.log.counts() == before
    assert [found.number for found in first.registry.store.versions()] == ["1"]
    collect(first.log)
    assert train(first).promoted  # put back, it goes on
    assert first.registry.champion() != champion


@pytest.mark.parametrize("kind", STORED)
def test_a_service_starts_with_other_features_and_changes_nothing_of_the_records(
    bind: Binder, first: Bound, kind: str
) -> None:
    changes, named = STORED[kind]
    changed = again(bind, first, **changes)
    stored = first.log.declared.stored
    if kind in ("task", "wait"):
        with pytest.raises(ChangedError) as refused:
            check_served(changed)
        assert named in refused.value.what
    else:
        check_served(changed)  # it answers by what the champion has learned
        in_force = first.declarations.in_force()
        assert in_force is not None
        assert in_force.number == 2
    assert again(bind, first).log.declared.stored == stored
    collect(first.log)
    assert train(first).promoted


def test_a_service_of_other_features_does_not_start_without_a_version(bind: Binder) -> None:
    first = bind()
    day(first, collected=False)
    with pytest.raises(ChangedError, match="feature 'b' was float, is str"):
        check_served(again(bind, first, features=(A, Feature("b", str))))


def test_a_learner_of_other_parameters_needs_a_new_line(bind: Binder, first: Bound) -> None:
    changed = again(bind, first, model=scaled)
    collect(changed.log)  # what is collected does not depend on it
    check_served(changed)  # the champion answers as before
    for door in (check_update, train, lambda bound: fold_from(bound, bound.registry.champion())):
        with pytest.raises(
            ChangedError, match=r"version 1: .*classifier.alpha was 0.0001, is 0.5"
        ) as no:
            door(changed)
        assert "--fresh" in no.value.hint
    updated = train(changed, from_scratch=True)
    assert updated.promoted
    day(changed)
    assert "fine-tunes version 2" in train(changed).reason
    assert rebuild_here(PIPELINE.name, "1", changed.settings).equal
    with pytest.raises(ChangedError):
        train(first)


def test_a_moved_factory_and_fields_of_the_recipe_may_change(bind: Binder, first: Bound) -> None:
    changed = again(bind, first, model=moved, batch_rows=32, passes=2, seed=5, threads=2)
    collect(changed.log)
    assert "fine-tunes version 1" in train(changed).reason


def test_a_stateless_pipeline_changes_its_learner_freely(bind: Binder, first: Bound) -> None:
    changed = again(bind, first, model=scaled, update=Stateless())
    collect(changed.log)
    assert train(changed).promoted
    with pytest.raises(ChangedError, match="alpha"):
        train(first)


def test_a_nullable_feature_is_recorded_at_once_and_learned_in_a_new_line(
    bind: Binder, first: Bound
) -> None:
    wider = (A, B, Feature("c", str, nullable=True))
    changed = again(bind, first, features=wider, model=models.river_hat)
    collect(changed.log)
    check_served(changed)  # the champion answers without it
    with pytest.raises(ChangedError, match=r"version 1.*feature 'c' was not there.*--fresh"):
        train(changed)
    assert train(changed, from_scratch=True).promoted
    check_served(changed)


@pytest.mark.parametrize("kind", ["gone", "order"])
def test_a_fresh_start_accepts_the_new_declaration(bind: Binder, first: Bound, kind: str) -> None:
    changed = again(bind, first, **STORED[kind][0])
    assert train(changed, from_scratch=True).promoted
    assert collect(changed.log).emitted == 120
    assert "fine-tunes version 2" in train(changed).reason
    check_served(changed)
    assert rebuild_here(PIPELINE.name, "1", changed.settings).equal
    assert rebuild_here(PIPELINE.name, "3", changed.settings, from_root=True).equal


def test_a_decision_waits_until_the_declaration_is_put_back(bind: Binder, first: Bound) -> None:
    collect(first.log)
    decision = decide(first)
    assert decision.fired
    changed = again(bind, first, model=scaled)
    with pytest.raises(ChangedError, match="alpha"):
        carry_out(changed, decision.id, by="test")
    kept = first.decisions.get(decision.id)
    assert (kept.outcome, kept.claimed_by) == (None, None)
    assert carry_out(first, decision.id, by="test").promoted


def test_reading_goes_on_by_a_changed_declaration(bind: Binder, first: Bound) -> None:
    collect(first.log)
    before = first.log.examples()
    for changes, _ in STORED.values():
        changed = again(bind, first, **changes)
        found = changed.log.examples()
        assert found["label"].equals(before["label"])
        assert changed.log.counts() == first.log.counts()
        assert found["features"].struct.field("a").equals(before["features"].struct.field("a"))
        assert changed.log.served(0, 9, ("features",)).height > 0
        assert found["emitted_at"][0] >= START
