"""The contract: one list of checks that every learner passes."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace
from tests.learners import estimators
from tests.learners.estimators import STATEFUL

from headwater.learners.guard import check_outputs
from headwater.learners.learner import Learner, Schema
from headwater.learners.wrap import check_bound, check_folds, wrap
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.values import LARGEST
from headwater.spec.errors import (
    DeclarationError,
    NonFiniteError,
    NotStatefulError,
    SchemaError,
)
from headwater.spec.pipeline import Pipeline, Task
from headwater.spec.updating.update import Stateful, Stateless

FEATURES = (Feature("a", float), Feature("b", float, nullable=True), Feature("c", str))
ROWS = 400
Make = Callable[[], object]

each_learner = pytest.mark.parametrize(
    ("task", "make"), [pytest.param(t, m, id=f"{m.__name__}-{t}") for t, m in STATEFUL]
)


def fresh(task: Task, make: Make) -> Learner:
    return wrap(Schema(task, FEATURES), make, batch_rows=None, seed=3, threads=1)


def data(task: Task, seed: int = 0, rows: int = ROWS) -> tuple[pl.DataFrame, pl.Series]:
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=rows), generator.normal(size=rows)
    c = generator.choice(["x", "y", "z"], rows)
    score = a + (c == "x") + generator.normal(scale=0.3, size=rows)
    frame = pl.DataFrame(
        {"a": a, "b": [None if i % 5 == 0 else v for i, v in enumerate(b.tolist())], "c": c}
    )
    if task == "regression":
        return frame, pl.Series("label", score)
    if task == "binary":
        return frame, pl.Series("label", score > 0.5)
    return frame, pl.Series("label", np.array(["low", "mid", "high"])[np.digitize(score, [0.0, 1.0])])


def learn(learner: Learner, task: Task, *pieces: slice, seed: int = 0) -> None:
    frame, labels = data(task, seed)
    if task == "multiclass":
        learner.expect_classes(labels.unique().to_list())
    for piece in pieces:
        learner.learn(frame[piece], labels[piece])


def digest_of(task: Task, make_name: str) -> str:
    """Return the digest that another process prints."""
    learner = fresh(task, getattr(estimators, make_name))
    learn(learner, task, slice(0, 200), slice(200, 400))
    return learner.digest()


@each_learner
def test_going_on_after_a_load_equals_never_stopping(task: Task, make: Make) -> None:
    whole, first, second = fresh(task, make), fresh(task, make), fresh(task, make)
    learn(whole, task, slice(0, 200), slice(200, 400))
    learn(first, task, slice(0, 200))
    second.load(first.dump())
    assert second.digest() == first.digest()
    learn(second, task, slice(200, 400))
    assert second.digest() == whole.digest()
    frame, _ = data(task, 1)
    for one, two in zip(second.predict(frame), whole.predict(frame), strict=True):
        assert one == pytest.approx(two, abs=1e-12)  # River sums over sets, in any order


@pytest.fixture(scope="module")
def digests_elsewhere() -> dict[str, str]:
    """Return every learner's digest, as a process with another hash seed makes it."""
    code = (
        "from tests.learners.test_contract import STATEFUL, digest_of\n"
        "for task, make in STATEFUL:\n"
        "    print(f'{make.__name__}-{task}', digest_of(task, make.__name__))"
    )
    completed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split() for line in completed.stdout.splitlines())


@each_learner
def test_another_process_with_another_hash_seed_gives_the_same_digest(
    task: Task, make: Make, digests_elsewhere: dict[str, str]
) -> None:
    assert digests_elsewhere[f"{make.__name__}-{task}"] == digest_of(task, make.__name__)


@each_learner
def test_predict_one_equals_predict(task: Task, make: Make) -> None:
    learner = fresh(task, make)
    learn(learner, task, slice(0, 400))
    frame, _ = data(task, 2, rows=20)
    many = learner.predict(frame)
    for row, output in zip(frame.to_dicts(), many, strict=True):
        assert learner.predict_one(row) == pytest.approx(output, abs=1e-9)


@each_learner
def test_learning_leaves_its_input_as_it_was(task: Task, make: Make) -> None:
    frame, labels = data(task)
    kept_frame, kept_labels = frame.clone(), labels.clone()
    learner = fresh(task, make)
    learner.learn(frame, labels)
    assert frame.equals(kept_frame)
    assert labels.equals(kept_labels)


@each_learner
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.01 * LARGEST, 1e308])
def test_numbers_that_are_not_finite_are_refused_before_learning(
    task: Task, make: Make, value: float
) -> None:
    learner = fresh(task, make)
    learn(learner, task, slice(0, 200))
    before = learner.digest()
    frame, labels = data(task, 4, rows=20)
    frame[7, "a"] = value
    with pytest.raises(NonFiniteError, match="'a'"):
        learner.learn(frame, labels)
    with pytest.raises(NonFiniteError, match="'a'"):
        learner.learn_one(frame.row(7, named=True), labels[7])
    assert learner.digest() == before


@each_learner
def test_the_largest_numbers_are_learned(task: Task, make: Make) -> None:
    """Learn the largest numbers that the doors accept, and leave no state that answers NaN."""
    learner = fresh(task, make)
    frame, labels = data(task)
    for row, value in ((20, LARGEST), (21, -LARGEST), (150, LARGEST), (151, LARGEST), (152, -LARGEST)):
        frame[row, "a"] = value
        frame[row + 1, "b"] = value
        if task == "regression":
            labels[row + 30] = value
    if task == "multiclass":
        learner.expect_classes(labels.unique().to_list())
    learner.learn(frame[:200], labels[:200])
    learner.learn(frame[200:], labels[200:])
    check_outputs(learner.predict(frame), task)


@pytest.mark.parametrize("name", ["DecisionTree", "ExtraTree", "RandomForest", "HistGradientBoosting"])
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_trees_of_32_bits_take_the_largest_numbers(task: Task, name: str) -> None:
    kind = "Regressor" if task == "regression" else "Classifier"
    learner = fresh(task, functools.partial(estimators.tree_of_32_bits, f"{name}{kind}"))
    frame, labels = data(task, rows=60)
    for row, value in ((20, LARGEST), (21, -LARGEST), (40, LARGEST)):
        frame[row, "a"] = value
        if task == "regression":
            labels[row + 3] = value
    learner.learn(frame, labels)
    check_outputs(learner.predict(frame), task)


@pytest.mark.parametrize("objective", ["multiclassova", "ova"])
def test_chances_of_one_against_all_come_to_one(objective: str) -> None:
    learner = fresh("multiclass", functools.partial(estimators.one_against_all, objective))
    learn(learner, "multiclass", slice(0, 200))
    frame, _ = data("multiclass")
    for shares in learner.predict(frame):
        assert isinstance(shares, dict)
        assert sum(shares.values()) == pytest.approx(1.0)


@each_learner
def test_other_columns_are_named(task: Task, make: Make) -> None:
    frame, labels = data(task)
    learner = fresh(task, make)
    for wrong in (frame.drop("c"), frame.rename({"c": "d"}), frame.with_columns(e=pl.lit(1.0))):
        with pytest.raises(SchemaError, match="a, b"):
            learner.learn(wrong, labels)


def test_a_state_that_learning_broke_is_put_back() -> None:
    learner = fresh("regression", estimators.exploding)
    learner.learn_one({"a": 0.0, "b": 0.0, "c": "x"}, 0.0)
    before = learner.digest()
    frame, labels = data("regression", 5, rows=50)
    with pytest.raises(NonFiniteError, match="last good state"):
        learner.learn(frame, labels)
    assert learner.digest() == before
    assert learner.predict_one({"a": 1.0, "b": 1.0, "c": "x"}) == 0.0


@pytest.mark.parametrize("make", [estimators.sgd, estimators.trees])
def test_a_learner_of_a_closed_set_refuses_a_new_class(make: Make) -> None:
    learner = fresh("multiclass", make)
    learn(learner, "multiclass", slice(0, 400))
    before = learner.digest()
    frame, _ = data("multiclass", 1, rows=3)
    with pytest.raises(SchemaError, match="new"):
        learner.learn(frame, pl.Series("label", ["low", "new", "mid"]))
    assert learner.digest() == before


@pytest.mark.parametrize("make", [estimators.sgd, estimators.trees])
def test_a_learner_begins_with_the_declared_classes(make: Make) -> None:
    """A class of which there is no example yet has a share, and its first example is learned."""
    schema = Schema("multiclass", FEATURES, ("high", "low", "mid", "never"))
    learner, again = (wrap(schema, make, batch_rows=None, seed=3, threads=1) for _ in range(2))
    frame, labels = data("multiclass")
    some = labels != "high"
    learner.expect_classes(["low", "mid"])
    learner.learn(frame.filter(some), labels.filter(some))
    (shares, *_) = learner.predict(frame)
    assert isinstance(shares, dict)
    assert set(shares) == {"high", "low", "mid", "never"}
    again.load(learner.dump())
    learner.learn(frame, labels)
    again.learn(frame, labels)
    assert learner.digest() == again.digest()
    before = learner.digest()
    with pytest.raises(SchemaError, match="new"):
        learner.learn(frame[:1], pl.Series("label", ["new"]))
    assert learner.digest() == before


def test_what_must_know_its_classes_learns_each_label_of_declared_ones() -> None:
    pipeline = Pipeline(
        name="kinds",
        task="multiclass",
        features=FEATURES,
        label=LabelRule(wait="1d"),
        model=estimators.sgd,
        update=Stateful(),
    )
    with pytest.raises(DeclarationError, match="declare them"):
        check_folds(pipeline, check_bound(pipeline))
    declared = replace(pipeline, label=LabelRule(wait="1d", classes=("low", "mid", "high")))
    check_folds(declared, check_bound(declared))
    opened = replace(pipeline, label=LabelRule(wait="1d", classes=("low", "mid"), open=True))
    with pytest.raises(DeclarationError, match="all classes"):
        check_folds(opened, check_bound(opened))


def test_a_learner_of_an_open_set_learns_a_new_class() -> None:
    learner = fresh("multiclass", estimators.hat)
    learn(learner, "multiclass", slice(0, 200))
    frame, _ = data("multiclass", 1, rows=100)
    learner.learn(frame, pl.Series("label", ["new"] * 100))
    output = learner.predict(frame)[0]
    assert isinstance(output, dict)
    assert output["new"] > 0


def test_a_million_categories_take_no_more_room() -> None:
    few, many = fresh("binary", estimators.trees), fresh("binary", estimators.trees)
    frame, labels = data("binary", rows=20_000)
    few.learn(frame, labels)
    many.learn(frame.with_columns(c=pl.int_range(pl.len()).cast(pl.String)), labels)
    assert len(many.dump()) < 4 * len(few.dump())


def declared(model: Make, update: Stateful | Stateless, task: Task = "binary") -> Pipeline:
    return Pipeline(
        name="bound",
        task=task,
        features=FEATURES,
        label=LabelRule(wait="1d"),
        model=model,  # type: ignore[arg-type] # a named function
        update=update,
    )


@pytest.mark.parametrize("asked", [{"batch_rows": 10}, {"passes": 2}])
def test_a_fit_only_learner_refuses_batch_rows_and_passes(asked: dict[str, int]) -> None:
    pipeline = replace(declared(estimators.fit_only, Stateless()), **asked)
    with pytest.raises(DeclarationError, match=f"{next(iter(asked))}.*only its last batch") as refused:
        check_bound(pipeline)
    assert f"leave {next(iter(asked))} out" in refused.value.hint
    check_bound(replace(declared(estimators.trees, Stateless()), **asked))


def test_a_fit_only_learner_cannot_be_fine_tuned() -> None:
    with pytest.raises(NotStatefulError, match="write update=Stateless"):
        check_bound(declared(estimators.fit_only, Stateful()))
    learner = check_bound(declared(estimators.fit_only, Stateless()))
    frame, labels = data("binary")
    learner.learn(frame, labels)
    assert len(learner.predict(frame)) == ROWS


def test_a_lambda_is_refused_with_what_to_write() -> None:
    with pytest.raises(DeclarationError, match="named functions"):
        check_bound(declared(estimators.with_lambda, Stateful()))


def test_an_estimator_of_another_library_is_refused() -> None:
    def stranger() -> object:
        return object()

    with pytest.raises(DeclarationError, match="no estimator of River"):
        wrap(Schema("binary", FEATURES), stranger, batch_rows=None, seed=0, threads=1)


@pytest.mark.parametrize(
    "make", [estimators.river_regression, estimators.sgd_regression, estimators.tree_regression]
)
def test_an_estimator_of_another_task_is_refused(make: Make) -> None:
    with pytest.raises(DeclarationError, match="binary"):
        fresh("binary", make)
