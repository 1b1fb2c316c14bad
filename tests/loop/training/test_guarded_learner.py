"""The guard of learning, alone: what was learned without harm hides no poison."""

import contextlib
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from benchmarks.faults.false_stops import taxi
from tests.learners.estimators import STATEFUL
from tests.learners.test_contract import data, fresh
from tests.loop import models

from headwater.learners.learner import Learner, Schema
from headwater.learners.wrap import wrap
from headwater.loop.training.fold import Computing
from headwater.loop.training.guard.guarded_learner import GuardedLearner, RuinError
from headwater.loop.training.guard.learning_guard import LearningGuard
from headwater.spec.data.feature import Feature
from headwater.spec.pipeline import Task

FEATURES = (Feature("a", float), Feature("useless", float))


def rides(rows: int, seed: int) -> tuple[pl.DataFrame, pl.Series]:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=rows)
    features = pl.DataFrame({"a": a, "useless": rng.normal(size=rows)})
    return features, pl.Series(20 + 5 * a + rng.normal(size=rows))


def learn(guarded: GuardedLearner, features: pl.DataFrame, labels: pl.Series) -> None:
    guarded.learn(features, labels, pl.int_range(len(labels), eager=True))


@pytest.fixture
def guarded() -> GuardedLearner:
    learner = wrap(Schema("regression", FEATURES), models.linear, batch_rows=1, seed=0, threads=1)
    guarded = GuardedLearner(learner, LearningGuard("regression", pl.DataFrame(), pl.Series()))
    learn(guarded, *rides(600, seed=0))
    return guarded


@pytest.mark.parametrize("harmless", [30.0, 1e3])
@pytest.mark.parametrize("poison", [1e3, -1e3])
def test_an_outlier_that_did_no_harm_hides_no_poison(
    guarded: GuardedLearner, harmless: float, poison: float
) -> None:
    features, labels = rides(1, seed=1)
    learn(guarded, features.with_columns(useless=pl.lit(harmless)), labels)
    learn(guarded, *rides(40, seed=2))
    features, labels = rides(1, seed=3)
    with pytest.raises(RuinError, match="would ruin"):
        learn(guarded, features, pl.Series([poison]))
    with pytest.raises(RuinError, match="would ruin"):
        learn(guarded, features.with_columns(a=pl.lit(50.0)), labels)


def test_outliers_that_each_do_a_little_harm_hardly_add_up() -> None:
    def noisy(rows: int, seed: int) -> tuple[pl.DataFrame, pl.Series]:
        features, labels = rides(rows, seed)
        noise = np.random.default_rng(10_000 + seed).normal(size=rows)
        return features, labels + 2 * features["useless"] + 2 * pl.Series(noise)

    def loss(learner: Learner) -> float:
        features, labels = noisy(400, seed=99)
        return float(np.abs(np.array(learner.predict(features)) - labels.to_numpy()).mean())

    schema = Schema("regression", FEATURES)
    clean, poisoned = (wrap(schema, models.leaves, batch_rows=1, seed=0, threads=1) for _ in range(2))
    guarded = GuardedLearner(poisoned, LearningGuard("regression", pl.DataFrame(), pl.Series()))
    for seed in range(10):
        rows = noisy(100, seed)
        clean.learn(*rows)
        learn(guarded, *rows)
        with contextlib.suppress(RuinError):
            learn(guarded, rides(1, seed=1_000 + seed)[0], pl.Series([900.0]))
    assert loss(poisoned) < 1.7 * loss(clean)


def test_in_a_batch_the_rows_that_are_out_are_named(guarded: GuardedLearner) -> None:
    features, labels = rides(1_500, seed=4)
    labels[1_200] = 1e9
    labels[1_300] = 1e7
    with pytest.raises(RuinError) as refused:
        learn(guarded, features, labels)
    assert refused.value.rows == [1_200, 1_300]


@pytest.mark.parametrize("times", [0.3, 3.0, 10.0])
def test_a_break_is_no_poison(guarded: GuardedLearner, times: float) -> None:
    features, labels = rides(400, seed=5)
    for row in range(400):
        learn(guarded, features[row : row + 1], labels[row : row + 1] * times)


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_with_true_outliers_never_stops(seed: int) -> None:
    """One ride of 200 is ten times as long: a line jumps at the first ones, and no other is to blame."""
    stream = taxi(1_500, seed, 3.0)
    schema = Schema("regression", tuple(Feature(name, float) for name in ("hour", "day", "km")))
    learner = wrap(schema, models.linear, batch_rows=1, seed=0, threads=1)
    guard = LearningGuard("regression", pl.DataFrame(), pl.Series())
    guarded = GuardedLearner(learner, guard, waits=True)
    for row in range(stream.height):
        learn(guarded, stream.drop("label")[row : row + 1], stream["label"][row : row + 1])


@pytest.mark.parametrize("times", [4.0, 6.0, 10.0, 19.0])
def test_an_unusual_label_is_learned_and_the_state_has_jumped_until_it_is_better(
    guarded: GuardedLearner, times: float
) -> None:
    features, labels = rides(1, seed=6)
    learn(guarded, features, labels)
    assert not guarded.unusual
    assert guarded.jumped() is None
    learn(guarded, features, pl.Series([35.0 * times]))
    assert guarded.unusual == [0]
    why = guarded.jumped()
    assert why is not None
    assert "the loss on the newest" in why
    learn(guarded, *rides(2_000, seed=7))
    assert guarded.jumped() is None
    assert not guarded.unusual


def test_a_model_that_cannot_learn_again_keeps_its_state_and_has_jumped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = wrap(Schema("regression", FEATURES), models.linear, batch_rows=1, seed=0, threads=1)
    guarded = GuardedLearner(learner, LearningGuard("regression", pl.DataFrame(), pl.Series()))
    learn(guarded, *rides(600, seed=0))
    learn(guarded, rides(1, seed=6)[0], pl.Series([35.0 * 10]))
    digest = learner.digest()

    def refuse(*_: object) -> None:
        raise RuntimeError("no more")

    with monkeypatch.context() as patched:
        patched.setattr(learner, "learn", refuse)
        assert guarded.jumped() == "the newest examples cannot be learned again: RuntimeError: no more"
    assert learner.digest() == digest
    assert "the loss on the newest" in str(guarded.jumped())


@pytest.mark.parametrize("rows", [300, 1_800])
@pytest.mark.parametrize(
    ("task", "make"), [pytest.param(t, m, id=f"{m.__name__}-{t}") for t, m in STATEFUL]
)
def test_under_a_guard_each_learner_learns_the_same_or_keeps_its_state(
    task: Task, make: Callable[[], object], rows: int
) -> None:
    """A batch with numbers that are out is learned, put back, and learned again: it leaves no trace."""
    features, labels = data(task, rows=1_800)
    far = pl.int_range(pl.len()).replace_strict({700: 60.0, 1_300: -60.0}, default=None)
    features = features.with_columns(a=pl.coalesce(far, "a"))
    plain, guarded_one = fresh(task, make), fresh(task, make)
    if task == "multiclass":
        plain.expect_classes(labels.unique().to_list())
        guarded_one.expect_classes(labels.unique().to_list())
    guarded = GuardedLearner(guarded_one, LearningGuard(task, pl.DataFrame(), pl.Series()))
    of_plain, of_guarded = Computing(seed=3, threads=1), Computing(seed=3, threads=1)
    for start in range(0, 1_800, rows):
        piece = slice(start, start + rows)
        try:
            with of_guarded:
                learn(guarded, features[piece], labels[piece])
        except RuinError:
            pass
        else:
            with of_plain:
                plain.learn(features[piece], labels[piece])
        assert guarded_one.digest() == plain.digest()
