"""An edited declaration is planned before it has an effect, and put in force by what acts on it."""

from typing import Any

import pytest
from tests.loop import models
from tests.loop.conftest import Binder, day
from tests.loop.other_models import scaled
from tests.loop.test_changes import A, B, again, first

from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.declaring.edit_plan import declare, plan_edits
from headwater.loop.training.catch_up import check_served
from headwater.loop.training.update import train
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.errors import ChangedError, DeclarationError
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.serving import Serving
from headwater.spec.updating.gate import Gate
from headwater.spec.updating.monitoring import Monitoring
from headwater.spec.updating.pace import Pace
from headwater.spec.updating.triggers.volume import Volume
from headwater.spec.updating.update import Stateless

__all__ = ["first"]

C = Feature("c", str, nullable=True)


def broken() -> object:
    raise ValueError("no model")


EDITS: dict[str, tuple[dict[str, Any], str, str]] = {
    "added": ({"features": (A, B, C)}, "feature 'c'", "a new line"),
    "added, never null": ({"features": (A, B, Feature("c", int))}, "feature 'c'", "refused"),
    "gone": ({"features": (A,)}, "feature 'b'", "a new line"),
    "retyped": ({"features": (A, Feature("b", str))}, "feature 'b'", "refused"),
    "order": ({"features": (B, A)}, "the features' order", "a new line"),
    "range": ({"features": (A, Feature("b", float, low=-9.0))}, "feature 'b'.low", "no effect"),
    "parameter": ({"model": scaled}, "alpha", "a new line"),
    "wait": ({"label": LabelRule(wait="2d")}, "label.wait", "no effect"),
    "revision": ({"label": LabelRule(wait="1d", revision="ignore")}, "label.revision", "learned on"),
    "update": ({"update": Stateless()}, "update", "learned on"),
    "triggers": ({"triggers": (Volume(11),)}, "triggers", "no effect"),
    "pace": ({"pace": Pace(cool_down="2d")}, "pace.cool_down", "no effect"),
    "monitoring": ({"monitoring": Monitoring(window="9d")}, "monitoring.window", "no effect"),
    "gate": ({"gate": Gate()}, "gate", "no effect"),
    "metrics": ({"metrics": ("log_loss",)}, "metrics", "no effect"),
    "batch_rows": ({"batch_rows": 32}, "batch_rows", "learned on"),
    "passes": ({"passes": 2}, "passes", "learned on"),
    "seed": ({"seed": 7}, "seed", "learned on"),
    "threads": ({"threads": 2}, "threads", "learned on"),
    "serving": ({"serving": Serving(deadline="3s")}, "serving.deadline", "no effect"),
    "promotion": ({"promotion": "by hand"}, "promotion", "no effect"),
}


@pytest.mark.parametrize("name", EDITS)
def test_each_edit_is_named_with_its_kind_and_planning_changes_nothing(
    bind: Binder, first: Bound, name: str
) -> None:
    changes, field, kind = EDITS[name]
    changed = again(bind, first, **changes)
    before = first.declarations.in_force()
    plan = plan_edits(changed)
    (edit,) = [edit for edit in plan.edits if edit.field.endswith(field)]
    assert edit.kind.startswith(kind)
    assert edit.was != edit.now
    assert edit.means
    assert plan.refused == (kind == "refused")
    assert plan.asks == (kind == "a new line")
    assert (plan.in_force, first.declarations.in_force()) == (1, before)
    if plan.refused:
        assert edit.do


@pytest.mark.parametrize("name", ["kind", "order", "parameters"])
def test_a_feature_may_have_a_name_of_the_statement_s_own(bind: Binder, name: str) -> None:
    declared = bind(features=(A, Feature(name, float, nullable=True)))
    declare(declared, by="test")
    edited = bind(declared.clock, features=(A, Feature(name, float, nullable=True, low=0.0)))  # type: ignore[arg-type]
    assert [edit.field for edit in plan_edits(edited).edits] == [f"feature {name!r}.low"]


def test_every_field_of_a_pipeline_has_an_edit_here(first: Bound) -> None:
    """Those left out need stores, people or a service, and have the rules of their kind."""
    edited = {name for changes, *_ in EDITS.values() for name in changes}
    elsewhere = {"name", "task", "learn", "routing", "people", "tables", "batch"}
    assert edited | elsewhere == set(Pipeline.__struct_fields__)


def test_the_same_declaration_has_no_edits(bind: Binder, first: Bound) -> None:
    plan = plan_edits(again(bind, first, label=LabelRule(wait="24h")))
    assert (plan.edits, plan.do, plan.refused) == ((), (), False)
    assert plan.next_update == "fine-tunes version 1"
    assert plan.service == "version 1 answers"


def test_a_new_line_begins_once_somebody_has_said_so(bind: Binder, first: Bound) -> None:
    changed = again(bind, first, model=scaled)
    collect(changed.log)
    with pytest.raises(ChangedError):
        train(changed)
    assert first.declarations.in_force().number == 1  # type: ignore[union-attr]
    declare(changed, by="test", apply=True)
    plan = plan_edits(changed)
    assert (plan.in_force, plan.by, plan.asks) == (2, "test", False)
    assert plan.next_update == "begins a new line"
    updated = train(changed)
    assert updated.promoted
    assert "a new line: " in updated.reason
    day(changed)
    assert "fine-tunes version 2" in train(changed).reason
    changed.registry.promote("1", by="test", reason="back")
    day(changed)
    assert plan_edits(changed).asks  # the word was for that line
    with pytest.raises(ChangedError):
        train(changed)


def test_an_edit_that_is_refused_is_not_carried_out_by_a_word(bind: Binder, first: Bound) -> None:
    changed = again(bind, first, features=(A, Feature("c", int)))
    plan = plan_edits(changed)
    assert {edit.kind for edit in plan.edits} == {"refused", "a new line"}
    assert not [step for step in plan.do if "--apply" in step]


def test_a_factory_that_fails_is_named(bind: Binder) -> None:
    with pytest.raises(DeclarationError, match="cannot be made: ValueError: no model") as refused:
        bind(model=broken)
    assert "broken" in refused.value.hint


def test_a_word_holds_for_the_declaration_that_it_was_said_of(bind: Binder, first: Bound) -> None:
    collect(first.log)
    declare(again(bind, first, model=scaled), by="test", apply=True)
    other = again(bind, first, model=scaled, batch_rows=32)
    assert plan_edits(other).asks
    with pytest.raises(ChangedError, match="alpha"):
        train(other)
    assert "fine-tunes version 1" in train(first).reason  # put back


def test_a_declaration_that_comes_back_keeps_its_number(bind: Binder, first: Bound) -> None:
    quick = again(bind, first, pace=Pace(cool_down="1h"))
    for bound, number in ((quick, 2), (first, 1), (quick, 2)):
        collect(bound.log)
        train(bound)
        found = bound.declarations.in_force()
        assert found is not None
        assert found.number == number


def test_a_feature_is_recorded_before_a_version_has_learned_it(bind: Binder, first: Bound) -> None:
    changed = again(bind, first, features=(A, B, C), model=models.river_hat)
    plan = plan_edits(changed)
    assert plan.service.startswith("version 1 answers; c is recorded")
    assert plan.archive == "gets c, null where it was not recorded"
    check_served(changed)
    gone = plan_edits(again(bind, first, features=(A,)))
    assert "version 1 answers by its own features, a, b" in gone.service
    assert "it cannot answer without feature 'b'" in gone.service
    assert gone.archive == "keeps b, c"
