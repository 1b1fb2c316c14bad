"""Differences between two declarations: every field has a rule."""

from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from headwater.spec.data.feature import BatchFeature, Feature, RequestFeature, StreamingFeature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.source import ParquetSource
from headwater.spec.declaration import (
    FEATURE_RULES,
    LABEL_RULES,
    PIPELINE_RULES,
    Declaration,
    Rule,
    declaration_of,
    differences,
    learner_differences,
    needing_a_word,
    refusal,
)
from headwater.spec.difference import Way
from headwater.spec.errors import DeclarationError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import LearnerCode, OffsetRange, Recipe
from headwater.spec.serving.batch import BatchPrediction
from headwater.spec.serving.queue import People
from headwater.spec.serving.routing import Shadow
from headwater.spec.serving.serving import Serving
from headwater.spec.updating.gate import Gate
from headwater.spec.updating.monitoring import Monitoring
from headwater.spec.updating.pace import Pace
from headwater.spec.updating.triggers.schedule import Every
from headwater.spec.updating.update import Stateful, Stateless

X, K = Feature("x", float), Feature("k", int)


def model() -> object:
    return object()


def other() -> object:
    return object()


TOY = Pipeline(
    name="toy",
    task="regression",
    features=(X, K),
    label=LabelRule(wait="1d"),
    model=model,
    update=Stateful(),
)
FIELDS: list[tuple[dict[str, Rule], set[str]]] = [
    (PIPELINE_RULES, set(Pipeline.__struct_fields__)),
    (LABEL_RULES, set(LabelRule.__struct_fields__)),
    (
        FEATURE_RULES,
        {*RequestFeature.__struct_fields__, *BatchFeature.__struct_fields__}
        | set(StreamingFeature.__struct_fields__),
    ),
]


@pytest.mark.parametrize(("rules", "fields"), FIELDS)
def test_every_field_has_a_rule(rules: dict[str, Rule], fields: set[str]) -> None:
    assert set(rules) == fields
    assert all(rule.compare is not None or rule.why for rule in rules.values())


def of_label(**changes: Any) -> Pipeline:
    return replace(TOY, label=replace(TOY.label, **changes))


def of(*features: Any) -> Pipeline:
    return replace(TOY, features=features)


@dataclass
class Case:
    field: str
    changed: Pipeline
    named: tuple[str, ...]
    way: Way


DIFFER = [
    Case("task", replace(TOY, task="binary"), ("task", "regression", "binary"), "back"),
    Case("features", of(X, Feature("k", str)), ("'k'", "int", "str"), "back"),
    Case("features", of(X, Feature("k", float)), ("'k'", "int", "float"), "on"),
    Case("features", of(X, Feature("k", str, convert=str)), ("'k'", "int", "str"), "fresh"),
    Case("features", of(Feature("x", int), K), ("'x'", "float", "int"), "back"),
    Case("features", of(X, Feature("n", int, was="k")), ("'k'", "called 'n'"), "fresh"),
    Case("features", of(X, K, Feature("n", int, default=0)), ("'n'",), "free"),
    Case("features", of(X, K, Feature("n", int, fill=len)), ("'n'",), "free"),
    Case("features", of(X), ("'k'", "gone"), "fresh"),
    Case("features", of(X, K, Feature("n", int)), ("'n'", "not there", "never null"), "back"),
    Case("features", of(X, K, Feature("n", int, nullable=True)), ("'n'",), "free"),
    Case("features", of(K, X), ("order", "x, k", "k, x"), "fresh"),
    Case("label", of_label(wait="2d"), ("label.wait", "1d", "2d"), "later"),
    Case("label", of_label(timeout=0.0), ("label.timeout", "None", "0.0"), "later"),
    Case(
        "label",
        of_label(precedence=("human",)),
        ("label.precedence", "not declared", "('human',)"),
        "later",
    ),
    Case("label", of_label(maturity="window"), ("label.maturity", "arrival", "window"), "later"),
    Case("label", of_label(due="k", most="1d"), ("label.due", "not declared", "'k'"), "later"),
]
SAME = [
    ("name", replace(TOY, name="other")),
    ("model", replace(TOY, model=other)),
    ("update", replace(TOY, update=Stateless())),
    ("triggers", replace(TOY, triggers=(Every("1d"),))),
    ("pace", replace(TOY, pace=Pace(cool_down="1h"))),
    ("monitoring", replace(TOY, monitoring=Monitoring(window="2d"))),
    ("gate", replace(TOY, gate=Gate(examples=77))),
    ("metrics", replace(TOY, metrics=("rmse",))),
    ("batch_rows", replace(TOY, batch_rows=10)),
    ("passes", replace(TOY, passes=2)),
    ("seed", replace(TOY, seed=9)),
    ("threads", replace(TOY, threads=2)),
    ("learn", replace(TOY, learn="each label")),
    ("serving", replace(TOY, serving=Serving(window_ms=9))),
    ("routing", replace(TOY, routing=Shadow(versions=("1",)))),
    ("people", replace(TOY, people=People())),
    ("batch", replace(TOY, batch=BatchPrediction(source=ParquetSource("a.parquet"), key="x"))),
    ("promotion", replace(TOY, promotion="by hand")),
    ("label", of_label(revision="ignore")),
    ("label", of_label(wait="24h")),
    ("label", of_label(low=0.0, high=9.0)),
    ("features", of(Feature("x", float, nullable=True), K)),
    ("features", of(Feature("x", float, column="X (m)"), K)),
    ("features", of(Feature("x", float, low=0, high=1), Feature("k", int, categories=(1, 2)))),
    ("features", of(Feature("x", float, default=1.0, was="y", convert=float), K)),
]


@pytest.mark.parametrize("case", DIFFER, ids=lambda case: f"{case.field} {case.way}")
def test_a_field_with_an_effect_on_records_yields_a_difference(case: Case) -> None:
    stored = Declaration.from_json(declaration_of(TOY).to_json())
    found, *others = differences(stored, declaration_of(case.changed))
    assert [other.field for other in others] == (["label.most"] if "label.due" in case.named else [])
    assert all(word in str(found) for word in case.named)
    assert found.way == case.way
    assert found.hint


@pytest.mark.parametrize(("field", "changed"), SAME)
def test_a_field_without_an_effect_on_records_yields_no_difference(
    field: str, changed: Pipeline
) -> None:
    assert field in PIPELINE_RULES
    assert differences(declaration_of(TOY), declaration_of(changed)) == ()


def test_every_field_of_a_pipeline_is_covered() -> None:
    tried = {case.field for case in DIFFER} | {field for field, _ in SAME}
    assert tried | {"tables"} == set(Pipeline.__struct_fields__)  # a table comes with its features


@pytest.mark.parametrize(
    ("way", "learned", "refused"),
    [
        ("free", True, False),
        ("later", True, False),
        ("fresh", False, False),
        ("fresh", True, True),
        ("back", False, True),
    ],
)
def test_differences_are_refused_if_versions_or_records_depend_on_them(
    way: Way, learned: bool, refused: bool
) -> None:
    case = next(case for case in DIFFER if case.way == way)
    found = differences(declaration_of(TOY), declaration_of(case.changed))
    assert needing_a_word(found, learned=learned) == (found if refused else ())


def test_the_hint_is_that_of_the_hardest_difference() -> None:
    changed = replace(of(Feature("k", str)), label=LabelRule(wait="2d"))
    found = needing_a_word(differences(declaration_of(TOY), declaration_of(changed)), learned=True)
    assert [one.way for one in found] == ["back", "fresh"]
    error = refusal("toy", "its records", found)
    assert error.hint.startswith("say how")
    assert error.differences == found


def test_a_refusal_is_bounded() -> None:
    many = tuple(Feature(f"a{i}" * 20, float) for i in range(100))
    stored = declaration_of(of(*many))
    found = differences(stored, declaration_of(of(*(Feature(f.name, str) for f in many))))
    assert len(str(refusal("toy", "its records", found))) < 1_000
    assert "97 more" in str(refusal("toy", "its records", found))


def test_a_dropped_feature_may_come_back_as_it_was() -> None:
    with_both = declaration_of(TOY)
    without = declaration_of(of(X)).after(with_both)
    assert [feature.name for feature in without.dropped] == ["k"]
    (back,) = differences(without, with_both)
    assert back.way == "free"
    ways = {one.way for one in differences(without, declaration_of(of(X, Feature("k", str))))}
    assert "back" in ways
    assert with_both.after(without).dropped == ()


@pytest.mark.parametrize("text", ["[]", "{}", "no", '{"task":"binary","features":[],"later":1}'])
def test_a_stored_declaration_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(DeclarationError, match="another shape"):
        Declaration.from_json(text)


def test_a_version_without_known_parameters_differs_from_any_learner() -> None:
    code = LearnerCode(module="m", function="f", source="", adapter="river")
    known = replace(code, parameters={"Line": "Line", "Line.l2": "0.0", "Line.l2.part": "1"})
    changed = replace(code, parameters={"Line": "Line", "Line.l2": "0.1", "Line.l2.part": "2"})
    assert learner_differences(recipe(known), recipe(known)) == ()
    (found,) = learner_differences(recipe(known), recipe(changed))
    assert str(found) == "Line.l2 was 0.0, is 0.1"
    (found,) = learner_differences(recipe(code), recipe(known))
    assert (found.was, found.way) == ("not kept", "fresh")
    (found,) = learner_differences(recipe(known), replace(recipe(known), classes=("a", "b")))
    assert str(found) == "label.classes was not declared, is ('a', 'b')"
    assert found.way == "fresh"


def test_classes_are_compared_in_the_learner_and_a_range_nowhere() -> None:
    shades = replace(TOY, task="multiclass", label=LabelRule(wait="1d"))
    named = replace(shades, label=LabelRule(wait="1d", classes=("a", "b")))
    assert differences(declaration_of(shades), declaration_of(named)) == ()
    assert declaration_of(of_label(low=0.0)) == declaration_of(TOY)


def test_what_is_not_declared_is_not_written() -> None:
    text = declaration_of(TOY).to_json()
    assert '"label":{"wait":"1d","timeout":null,"maturity":"arrival","revision":"learn"}' in text
    assert '{"type":"request","name":"x","dtype":"float","nullable":false}' in text
    assert (
        b"classes"
        not in recipe(LearnerCode(module="m", function="f", source="", adapter="river")).to_json()
    )


def recipe(code: LearnerCode) -> Recipe:
    return Recipe(
        pipeline="toy",
        task="regression",
        update="stateless",
        parent=None,
        parent_digest=None,
        examples=OffsetRange(0, 1),
        exclusions=(),
        subsample=None,
        revisions="learn",
        batch_rows=None,
        passes=1,
        seed=0,
        threads=1,
        learner=code,
        features=(X,),
        libraries={},
    )
