"""Every estimator of River and scikit-learn, found, and folded as the loop does: a line of JSON each."""

import importlib
import inspect
import pkgutil
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from headwater.infra.offline import quiet
from headwater.learners.learner import Learner, Schema
from headwater.learners.rebuildable import doubts
from headwater.learners.wrap import wrap
from headwater.loop.training.fold import Computing
from headwater.spec.data.feature import Feature
from headwater.spec.pipeline import Task

__all__ = ["Folded", "found"]

_ROWS = 120
_MOST_S = 20
_NUMBERS = tuple(Feature(name, float) for name in "abc")
_TEXT = (Feature("t", str),)
_NO_MODELS = ("anomaly", "cluster", "datasets", "test", "compose.pipeline", "compose.union")


class Folded(msgspec.Struct, frozen=True):
    """How an estimator was folded.

    Parameters
    ----------
    name
        Library, class and task.
    digest
        Of its state; empty where it cannot learn these examples.
    doubted, doubted_learned
        Whether it is warned of unfitted, and learned.
    """

    name: str
    digest: str
    doubted: bool
    doubted_learned: bool


class _Found(NamedTuple):
    name: str
    task: Task
    make: Callable[[], object]
    features: tuple[Feature, ...] = _NUMBERS


def found() -> list[_Found]:
    """Find them, in an order that is the same in every process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sorted([*_river(), *_sklearn(), *_searches(), *_texts()], key=lambda one: one.name)


def _river() -> Iterator[_Found]:
    import river  # noqa: PLC0415 - a second to import
    from river import base, linear_model  # noqa: PLC0415

    kinds: set[Any] = set()
    for module in pkgutil.walk_packages(river.__path__, "river."):
        if not any(word in module.name for word in _NO_MODELS):
            with suppress(ImportError):  # some need what is not installed
                kinds |= set(filter(_is_of, vars(importlib.import_module(module.name)).values()))
    for kind in kinds:
        for i in range(len(_parameters(kind)[:2])):
            make, name = partial(_make_river, kind, i), f"{kind.__module__}.{kind.__name__} {i}"
            if issubclass(kind, base.Classifier):
                yield _Found(f"{name} binary", "binary", make)
                yield _Found(f"{name} multiclass", "multiclass", make)
            elif issubclass(kind, base.Regressor):
                yield _Found(name, "regression", make)
            elif issubclass(kind, base.Transformer):
                yield _Found(
                    name, "regression", lambda make=make: make() | linear_model.LinearRegression()
                )


def _is_of(kind: object) -> bool:
    if not inspect.isclass(kind) or inspect.isabstract(kind) or kind.__name__.startswith("_"):
        return False
    return kind.__module__.startswith("river.") and not any(w in kind.__module__ for w in _NO_MODELS)


def _parameters(kind: Any) -> list[dict[str, Any]]:
    """Give parameters that River's own checks use: some classes need some."""
    try:
        return list(kind._unit_test_params())  # noqa: SLF001 - made for tests of all
    except (AttributeError, NotImplementedError):
        return [{}]


def _make_river(kind: Any, which: int) -> Any:
    return kind(**_parameters(kind)[which])


def _sklearn() -> Iterator[_Found]:
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415 - a second to import
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - as above
    from sklearn.utils import all_estimators  # noqa: PLC0415

    for name, kind in all_estimators(type_filter="classifier"):
        yield _Found(f"sklearn {name} binary", "binary", partial(_make_sklearn, kind, "classifier"))
        yield _Found(
            f"sklearn {name} multiclass", "multiclass", partial(_make_sklearn, kind, "classifier")
        )
    for name, kind in all_estimators(type_filter="regressor"):
        yield _Found(
            f"sklearn {name} regression", "regression", partial(_make_sklearn, kind, "regressor")
        )
    for name, kind in all_estimators():
        if hasattr(kind, "transform") and not hasattr(kind, "predict_proba"):
            make = partial(_make_sklearn, kind, "classifier")
            yield _Found(
                f"sklearn {name} before SGD",
                "binary",
                lambda make=make: make_pipeline(make(), SGDClassifier(random_state=0)),
            )


def _make_sklearn(kind: Any, role: str) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge  # noqa: PLC0415
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor  # noqa: PLC0415

    one, two = (
        (LogisticRegression(), DecisionTreeClassifier())
        if role == "classifier"
        else (Ridge(), DecisionTreeRegressor())
    )
    needed: dict[str, object] = {"estimator": one, "estimators": [("one", one), ("two", two)]}
    needed |= dict.fromkeys(
        ("param_grid", "param_distributions"),
        {"C": [0.1, 1.0]} if role == "classifier" else {"alpha": [0.1, 1.0]},
    )
    needed |= {"transformers": [("one", "passthrough", ["a"])], "transformer_list": []}
    asked = inspect.signature(kind).parameters.values()
    return kind(
        **{p.name: needed[p.name] for p in asked if p.default in (p.empty, None) and p.name in needed}
    )


def _searches() -> Iterator[_Found]:
    from sklearn import model_selection  # noqa: PLC0415
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401, PLC0415 - for two of them

    for name in ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"):
        kind = getattr(model_selection, name)
        yield _Found(f"sklearn {name} search", "binary", partial(_make_sklearn, kind, "classifier"))


def _texts() -> Iterator[_Found]:
    from sklearn.compose import make_column_transformer  # noqa: PLC0415
    from sklearn.feature_extraction import text  # noqa: PLC0415
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    for name in ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer"):
        for words in (None, "english", ["x"]):
            yield _Found(
                f"sklearn {name} {words}",
                "binary",
                lambda name=name, words=words: make_pipeline(
                    make_column_transformer((getattr(text, name)(stop_words=words), "t")),
                    SGDClassifier(random_state=0),
                ),
                _TEXT,
            )


def _examples(one: _Found) -> tuple[pl.DataFrame, pl.Series]:
    drawn = np.random.default_rng(0)
    numbers = drawn.normal(size=(_ROWS, 3))
    score = numbers[:, 0] + 0.3 * drawn.normal(size=_ROWS)
    if one.name.startswith("sklearn"):  # some take no negative numbers
        numbers, score = np.abs(numbers), score + 4.0
    frame = pl.DataFrame(dict(zip("abc", numbers.T, strict=True)))
    if one.features == _TEXT:
        frame = pl.DataFrame({"t": ["ab cd", "cd ef", "ef gh"] * (_ROWS // 3)})
    middle = float(np.median(score))
    if one.task == "regression":
        return frame, pl.Series("label", score)
    if one.task == "binary":
        return frame, pl.Series("label", score > middle)
    return frame, pl.Series(
        "label", np.array(["l", "m", "h"])[np.digitize(score, [middle - 0.4, middle + 0.4])]
    )


def _fold(one: _Found) -> Learner:
    """Learn in two batches what goes on, in one what is only fitted; seeded, as a fold is."""
    frame, labels = _examples(one)
    with Computing(0, 1):
        learner = wrap(Schema(one.task, one.features), one.make, batch_rows=None, seed=0, threads=1)
        learner.expect_classes(labels.unique().to_list())
        size = _ROWS // 2 if learner.capabilities.stateful else _ROWS
        for start in range(0, _ROWS, size):
            learner.learn(frame[start : start + size], labels[start : start + size])
    return learner


def _folded(one: _Found) -> Folded:
    signal.alarm(_MOST_S)
    try:
        doubted = bool(doubts(one.make()))
        learner = _fold(one)
        return Folded(one.name, learner.digest(), doubted, bool(doubts(learner)))
    except Exception:  # noqa: BLE001 - many learn other examples, or take longer
        return Folded(one.name, "", doubted=False, doubted_learned=False)
    finally:
        signal.alarm(0)


def _too_long(*_: object) -> None:
    raise TimeoutError


def main(seed: int, step: int) -> None:
    """Fold every `step`-th, with what a process may differ in drawn from a seed."""
    quiet()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_long)
    kept = [object() for _ in range(seed * 1_000)]  # moves addresses
    random.seed(seed)
    np.random.seed(seed)
    for one in found()[::step]:
        sys.stdout.write(msgspec.json.encode(_folded(one)).decode() + "\n")
        sys.stdout.flush()
    kept.clear()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
