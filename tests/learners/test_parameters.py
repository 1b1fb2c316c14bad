"""The parameters of a factory's estimator: every edit is named, and nothing else is an edit."""

import importlib
import linecache
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.learners import estimators

from headwater.learners.parameters import parameters_of

FACTORIES = [
    estimators.lr,
    estimators.hat,
    estimators.arf,
    estimators.river_regression,
    estimators.sgd,
    estimators.trees,
    estimators.decaying_trees,
    estimators.fit_only,
    estimators.with_lambda,
]


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_factory_lists_the_same_each_time(factory: Callable[[], object]) -> None:
    assert parameters_of(factory) == parameters_of(factory)
    assert all(len(said) < 300 for said in parameters_of(factory).values())


def river(l2: float = 0.0, lr: float = 0.01, *, first: str = "scale", seed: int | None = None) -> Any:
    from river import compose, ensemble, linear_model, optim, preprocessing, tree  # noqa: PLC0415

    steps = {"scale": preprocessing.StandardScaler(), "least": preprocessing.MinMaxScaler()}
    order = [first, *(name for name in steps if name != first)]
    model = compose.Pipeline(*((name, steps[name]) for name in order))
    bagged = ensemble.BaggingClassifier(tree.HoeffdingTreeClassifier(), n_models=2, seed=seed)
    voting = ensemble.VotingClassifier([linear_model.LogisticRegression(optim.SGD(lr), l2=l2), bagged])
    return model | voting


def scikit(alpha: float = 0.1, columns: tuple[str, ...] = ("a",), seed: object = 0) -> Any:
    from sklearn.compose import make_column_transformer  # noqa: PLC0415
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: PLC0415

    transformer = make_column_transformer((StandardScaler(), list(columns)))
    power = FunctionTransformer(partial(np.power, 2))
    return make_pipeline(power, transformer, SGDClassifier(alpha=alpha, random_state=seed))


def boosted(leaves: int = 31, decay: float = 0.9, **more: Any) -> Any:
    from lightgbm import LGBMClassifier  # noqa: PLC0415

    from headwater.learners.lightgbm_learner import Boosted  # noqa: PLC0415

    return Boosted(LGBMClassifier(num_leaves=leaves, **more), decay=decay)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (river(), river(l2=0.1), {"l2": ("0.0", "0.1")}),
        (river(), river(lr=0.5), {"optimizer.lr.learning_rate": ("0.01", "0.5")}),
        (river(), river(first="least"), {"Pipeline": ("scale, least", "least, scale")}),
        (river(seed=1), river(seed=2), {"seed": ("1", "2")}),
        (scikit(), scikit(alpha=0.2), {"sgdclassifier.alpha": ("0.1", "0.2")}),
        (scikit(), scikit(columns=("a", "b")), {"standardscaler columns": ("['a']", "['a', 'b']")}),
        (boosted(), boosted(leaves=7), {"num_leaves": ("31", "7")}),
        (boosted(), boosted(decay=0.5), {"decay": ("0.9", "0.5")}),
        (boosted(), boosted(max_bin=15), {"max_bin": ("not there", "15")}),
    ],
)
def test_an_edit_is_named(before: object, after: object, named: dict[str, tuple[str, str]]) -> None:
    was, now = parameters_of(lambda: before), parameters_of(lambda: after)
    paths = [path for path in {**was, **now} if was.get(path) != now.get(path)]
    ((end, (old, new)),) = named.items()
    assert [path.endswith(end) for path in paths] == [True]
    assert old in was.get(paths[0], "not there")
    assert new in now[paths[0]]


_TEXT = """
from river import compose, linear_model

class Own(linear_model.LogisticRegression):
    def learn_one(self, x, y):
        super().learn_one({key: value * 2 for key, value in x.items()}, y)

def cut(x):
    'Cut.'
    return {key: min(value, 5) for key, value in x.items()}

def model():
    few = lambda x: {key: value + 3 for key, value in x.items()}
    return compose.FuncTransformer(cut) | ("few", compose.FuncTransformer(few)) | Own()
"""


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("min(value, 5)", "min(value, 1)", "cut.func.text"),
        ("value + 3", "value + 4", "few.func.text"),
        ("value * 2", "value * 7", "Own.text"),
        ("'Cut.'", "'Cut off.'  # at five", None),
        ("def model():", "def model():  # of ours", None),
    ],
)
def test_the_text_of_a_function_or_a_class_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, named: str | None
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for name, text in (("as_it_was", _TEXT), ("as_it_is", _TEXT.replace(old, new))):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        linecache.clearcache()
        found.append(parameters_of(importlib.import_module(name).model))
    was, now = found
    assert was.keys() == now.keys()
    differing = [path for path in was if was[path] != now[path]]
    assert differing == ([] if named is None else [f"Pipeline.{named}"])


class Mine:
    """A class of the user's own, which hides what it does."""

    def __init__(self, scale: float, inner: object = None) -> None:
        self.hidden = scale * 2
        self.inner = inner


def test_a_users_own_class_counts_with_its_attributes() -> None:
    assert parameters_of(lambda: Mine(1.0))["Mine.hidden"] == "2.0"
    assert parameters_of(lambda: Mine(2.0))["Mine.hidden"] == "4.0"


def test_a_drawn_value_is_no_parameter() -> None:
    rng = np.random.default_rng()

    def drawn() -> object:
        return Mine(float(rng.random()), np.random.RandomState())

    found = parameters_of(drawn)
    assert "Mine.hidden" not in found
    assert found["Mine.inner"] == "a generator"
    assert parameters_of(drawn) == found
    assert parameters_of(lambda: river(seed=None)) == parameters_of(lambda: river(seed=None))
    made = parameters_of(lambda: scikit(seed=np.random.RandomState(1)))
    assert made == parameters_of(lambda: scikit(seed=np.random.RandomState(2)))


def test_an_estimator_that_contains_itself_is_listed() -> None:
    def looped() -> object:
        mine = Mine(1.0)
        mine.inner = mine
        return mine

    assert parameters_of(looped)["Mine.inner"] == "itself"
