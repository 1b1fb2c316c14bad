"""A library's refusal to learn is a HeadwaterError that names the estimator, and changes no state."""

from collections.abc import Callable

import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from river import compose, linear_model
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from tests.learners.test_contract import data, fresh

from headwater.learners.learner import Learner
from headwater.spec.errors import UnlearnableError
from headwater.spec.pipeline import Task


class Refusing(linear_model.LogisticRegression):
    """Refuses to learn, as River's do where a parameter is wrong."""

    def learn_one(self, *_: object, **__: object) -> None:
        """Refuse."""
        raise ValueError("no such loss")


def only_a(last: BaseEstimator) -> object:
    return make_pipeline(make_column_transformer(("passthrough", ["a"])), last)


REFUSED: dict[str, tuple[Task, Callable[[], object], str, str]] = {
    "rate": ("binary", lambda: LGBMClassifier(learning_rate=-1.0), "LGBMClassifier", "learning_rate"),
    "leaves": ("binary", lambda: LGBMClassifier(num_leaves=1), "LGBMClassifier", "num_leaves"),
    "bool": ("binary", lambda: LGBMClassifier(extra_trees=1), "LGBMClassifier", "extra_trees"),
    "labels": ("regression", lambda: LGBMRegressor(objective="gamma"), "LGBMRegressor", "gamma"),
    "partial_fit": ("binary", lambda: only_a(SGDClassifier(alpha=-1.0)), "SGDClassifier", "alpha"),
    "fit": (
        "binary",
        lambda: only_a(RandomForestClassifier(n_estimators=0)),
        "RandomForestClassifier",
        "n_estimators",
    ),
    "river": ("binary", lambda: compose.SelectType(float) | Refusing(), "Refusing", "no such loss"),
}


def batch(learner: Learner, task: Task) -> None:
    learner.learn(*data(task))


def one(learner: Learner, task: Task) -> None:
    frame, labels = data(task)
    learner.learn_one(frame.row(1, named=True), labels[1])


@pytest.mark.parametrize("learn", [batch, one])
@pytest.mark.parametrize(("task", "make", "name", "cause"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_of_the_library_is_named_and_changes_nothing(
    task: Task,
    make: Callable[[], object],
    name: str,
    cause: str,
    learn: Callable[[Learner, Task], None],
) -> None:
    learner = fresh(task, make)
    before = learner.digest()
    with pytest.raises(UnlearnableError, match=name) as refused:
        learn(learner, task)
    assert cause in refused.value.what
    assert refused.value.hint
    assert refused.value.__cause__ is not None
    assert learner.digest() == before
