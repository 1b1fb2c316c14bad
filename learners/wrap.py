"""The wrapping of an estimator behind the learner's interface."""

import pickle
from collections.abc import Callable
from typing import Any, Literal

from headwater.learners.learner import Capabilities, Learner, Schema
from headwater.spec.errors import DeclarationError, HeadwaterError, NotStatefulError
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["Adapter", "adapter_of", "check_bound", "check_folds", "fresh_of", "wrap"]

Adapter = Literal["river", "sklearn", "lightgbm"]

_PACKAGES: dict[str, Adapter] = {"river": "river", "lightgbm": "lightgbm", "sklearn": "sklearn"}


def adapter_of(estimator: object) -> Adapter:
    """Name the adapter that an estimator needs, from the libraries its class comes from.

    Raises
    ------
    DeclarationError
        If it comes from none that is known.
    """
    if type(estimator).__module__ == "headwater.learners.lightgbm_learner":
        return "lightgbm"
    for kind in type(estimator).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in _PACKAGES:
            return _PACKAGES[package]
    raise DeclarationError(
        f"{type(estimator).__name__} is no estimator of River, scikit-learn or LightGBM",
        hint="return one of theirs, or a subclass of one, from the model factory",
    )


def wrap(
    schema: Schema, factory: Callable[[], object], *, batch_rows: int | None, seed: int, threads: int
) -> Learner:
    """Make a fresh learner.

    Parameters
    ----------
    schema
        What it learns.
    factory
        Makes the unfitted estimator.
    batch_rows, seed, threads
        As in the pipeline.

    Raises
    ------
    DeclarationError
        If the estimator is not known, does not fit the task, or holds a lambda.
    """
    estimator: Any = factory()
    match adapter_of(estimator):
        case "river":
            from headwater.learners.river_learner import RiverLearner  # noqa: PLC0415 - imports River

            return RiverLearner(schema, estimator, batch_rows)
        case "lightgbm":
            from headwater.learners.lightgbm_learner import BoostingLearner  # noqa: PLC0415 - an extra

            return BoostingLearner(schema, estimator, seed, threads)
        case "sklearn":
            from headwater.learners.sklearn_learner import SklearnLearner  # noqa: PLC0415 - imports scikit-learn

            return SklearnLearner(schema, estimator)


def fresh_of(pipeline: Pipeline) -> Learner:
    """Make a pipeline's fresh learner; raises as :func:`wrap` does."""
    return wrap(
        Schema(pipeline.task, pipeline.features, pipeline.label.known_classes),
        pipeline.model,
        batch_rows=pipeline.batch_rows,
        seed=pipeline.seed,
        threads=pipeline.threads,
    )


def check_bound(pipeline: Pipeline) -> Learner:
    """Make a pipeline's learner, and check that it can do what the pipeline asks.

    Raises
    ------
    NotStatefulError
        If the pipeline fine-tunes what can only be fitted, for its class or for a parameter.
    DeclarationError
        As for :func:`wrap`.
    """
    try:
        learner = fresh_of(pipeline)
    except HeadwaterError:
        raise
    except Exception as error:  # whatever a user's function does
        factory = f"{pipeline.model.__module__}:{pipeline.model.__name__}"
        raise DeclarationError(
            f"the model of pipeline {pipeline.name!r} cannot be made: {type(error).__name__}: {error}",
            hint=f"look at {factory}: it returns the unfitted estimator",
        ) from error
    can = learner.capabilities
    if not can.stateful:
        _check_fit_only(pipeline, can)
    try:
        learner.dump()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DeclarationError(
            f"the model of pipeline {pipeline.name!r} cannot be stored: {error}",
            hint="replace lambdas and nested functions by named functions at the top of the module",
        ) from error
    return learner


def _check_fit_only(pipeline: Pipeline, can: Capabilities) -> None:
    """Refuse a pipeline that fine-tunes a learner that can only be fitted."""
    kind = type(pipeline.model()).__name__
    name = f"{kind} of pipeline {pipeline.name!r} can only be fitted from scratch"
    why = f"{name}: {can.fit_only}" if can.fit_only else name
    if isinstance(pipeline.update, Stateful):
        leave = (
            "leave that parameter out"
            if can.fit_only
            else "take an estimator whose every step has partial_fit"
        )
        raise NotStatefulError(
            f"{why}, and update=Stateful(...) asks to fine-tune it",
            hint=f'write update=Stateless(window="90d"), or {leave}',
        )
    if pipeline.batch_rows is not None or pipeline.passes > 1:
        setting = (
            f"batch_rows={pipeline.batch_rows}" if pipeline.passes == 1 else f"passes={pipeline.passes}"
        )
        raise DeclarationError(
            f"{why}, and with {setting} only its last batch would be learned",
            hint=f"leave {setting.partition('=')[0]} out",
        )


def check_folds(pipeline: Pipeline, learner: Learner) -> None:
    """Refuse a pipeline that cannot learn example by example.

    Raises
    ------
    DeclarationError
        If its learner is not stateful, takes all examples at once, or must know all classes ahead.
    """
    can = learner.capabilities
    wrong = None
    if not can.stateful:
        wrong = "its learner can only be fitted from scratch", "take an estimator with partial_fit"
    elif (pipeline.batch_rows or can.batch_rows) is None:
        wrong = "its learner takes an update's examples all at once", "write batch_rows=1_000, say"
    elif pipeline.task == "multiclass" and not (can.open_labels or pipeline.label.closed_classes):
        wrong = (
            "its learner must know all classes ahead",
            'declare them, LabelRule(classes=("red", "blue")), or take a River estimator',
        )
    elif pipeline.passes != 1:
        wrong = f"it goes over its examples {pipeline.passes} times", "write passes=1"
    if wrong is not None:
        raise DeclarationError(
            f"pipeline {pipeline.name!r} has learn='each label', and {wrong[0]}",
            hint=f"{wrong[1]}, or write learn='on schedule'",
        )
