"""Learners that must know all classes ahead begin with those that are declared."""

from datetime import timedelta

import pytest
from tests.loop import models
from tests.loop.conftest import Binder

from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.rebuild import rebuild
from headwater.loop.training.update import train
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import ChangedError
from headwater.spec.recipe import Recipe

DECLARED = LabelRule(wait="1d", classes=("low", "high", "mid"))


def hour(bound: Bound, *classes: str) -> None:
    """Record forty examples of these classes."""
    bound.clock.advance_to(bound.clock.now() + timedelta(hours=1))  # type: ignore[attr-defined] # simulated
    now, tag = bound.clock.now(), bound.log.stop()
    for i in range(40):
        values = {"a": float(i % 7), "b": float(i % 3)}
        one = Prediction(id=f"{tag}-{i}", features=values, output={"low": 1.0}, served_at=now)
        bound.log.record([one])
        value = classes[i % len(classes)]
        bound.log.label([Label(prediction_id=one.id, value=value, known_at=now)])
    collect(bound.log)


@pytest.mark.parametrize("model", [models.sgd, models.trees])
def test_a_declared_class_is_learned_by_a_version_that_has_not_seen_it(
    bind: Binder, model: object
) -> None:
    bound = bind(model=model, task="multiclass", label=DECLARED)
    for classes in (("low", "mid"), ("low", "high")):
        hour(bound, *classes)
        made = train(bound).version
        assert made is not None
        recipe = Recipe.from_json(bound.registry.store.verified_files(made).recipe)
        assert recipe.classes == ("high", "low", "mid")
    assert (made.number, made.parent) == ("2", "1")
    rebuilt = rebuild("line", "2", bound.settings, from_root=True)
    assert rebuilt.equal
    fewer = bind(model=model, task="multiclass", label=LabelRule(wait="1d", classes=("low", "mid")))
    hour(fewer, "low")
    with pytest.raises(ChangedError, match=r"label\.classes was .*'high', 'low', 'mid'"):
        train(fewer)


def test_a_learner_of_an_open_set_has_no_classes_in_its_recipe(bind: Binder) -> None:
    bound = bind(model=models.river_hat, task="multiclass", label=DECLARED)
    hour(bound, "low", "mid")
    made = train(bound).version
    assert made is not None
    assert b'"classes"' not in bound.registry.store.verified_files(made).recipe
