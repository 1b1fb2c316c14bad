"""The learner of scikit-learn estimators: ``partial_fit`` if every step has it, ``fit`` otherwise."""

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from headwater.learners.canonical import canonical_digest
from headwater.learners.guard import check_batch, check_outputs, keeping_last_good
from headwater.learners.learner import Capabilities, Schema
from headwater.learners.process_state import SeededGenerators, ignoring_warnings
from headwater.spec.data.records import FeatureValue, LabelValue, Output
from headwater.spec.errors import DeclarationError, NotEnoughError, SchemaError, few

__all__ = ["SklearnLearner"]

_BATCH_ROWS = 1_000
_PROBES = 16


class SklearnLearner:
    """A scikit-learn estimator or pipeline, fed with pandas frames.

    It is stateful where its last step has ``partial_fit`` and every step before it has too, or needs
    no fitting (``FeatureHasher``, ``FunctionTransformer``); a ``ColumnTransformer`` counts as the steps
    within it. A parameter that ``partial_fit`` refuses makes it one that is only fitted. Numbers that
    are None arrive as NaN, strings and bools that are None as None.

    Parameters
    ----------
    schema
        What it learns.
    estimator
        Unfitted; kept, not copied.

    Raises
    ------
    DeclarationError
        If the estimator does not fit the task.
    """

    def __init__(self, schema: Schema, estimator: Any) -> None:
        from sklearn.base import is_classifier, is_regressor  # noqa: PLC0415 - a second to import

        self._schema = schema
        self._estimator = estimator
        self._names = tuple(feature.name for feature in schema.features)
        known: list[LabelValue] = sorted(schema.classes)
        self._classes = [False, True] if schema.task == "binary" else known
        self._fitted = False
        regression = schema.task == "regression"
        if not (is_regressor(estimator) if regression else is_classifier(estimator)):
            raise DeclarationError(
                f"{type(estimator).__name__} is no {'regressor' if regression else 'classifier'}, "
                f"and the task is {schema.task}",
                hint=f"end the model with a {'regressor' if regression else 'classifier'}",
            )
        self._lost = _lost_by_parts(estimator, regression=regression) if _learns_on(estimator) else ""
        self._stateful = _learns_on(estimator) and not self._lost

    @property
    def schema(self) -> Schema:
        """The task and features that the learner was made for."""
        return self._schema

    @property
    def capabilities(self) -> Capabilities:
        """The learner's capabilities."""
        return Capabilities(
            stateful=self._stateful,
            probabilities=hasattr(self._estimator, "predict_proba"),
            open_labels=False,
            batch_rows=_BATCH_ROWS if self._stateful else None,
            fit_only=self._lost,
        )

    def expect_classes(self, classes: Sequence[LabelValue]) -> None:
        """Settle the classes before the first batch; refuse new ones after it."""
        if self._schema.task != "multiclass":
            return
        if not self._fitted:
            self._classes = sorted(set(classes) | set(self._classes), key=str)
            return
        if new := sorted(set(classes) - set(self._classes), key=str):
            raise SchemaError(
                f"{type(self._estimator).__name__} was fitted without the classes {few(new)}",
                hint="declare them, LabelRule(classes=(...)), and train --fresh; or take a River "
                "estimator, which learns them",
            )

    def predict(self, features: pl.DataFrame) -> list[Output]:
        """Predict one output a row."""
        if not self._fitted:
            raise NotEnoughError("the learner has learned nothing yet", hint="headwater train")
        if features.is_empty():
            return []
        frame = self._frame(features)
        if self._schema.task == "regression":
            return [float(value) for value in self._estimator.predict(frame)]
        if not hasattr(self._estimator, "predict_proba"):
            answers = self._estimator.predict(frame)
            if self._schema.task == "binary":
                return [float(bool(answer)) for answer in answers]
            return [{str(answer): 1.0} for answer in answers]
        shares = self._estimator.predict_proba(frame)
        classes = list(self._estimator.classes_)
        if self._schema.task == "binary":
            if True not in classes:
                return [0.0] * len(shares)
            return [float(p) for p in shares[:, classes.index(True)]]
        names = [str(name) for name in classes]
        return [dict(zip(names, map(float, row), strict=True)) for row in shares]

    def predict_one(self, features: Mapping[str, FeatureValue]) -> Output:
        """Predict for one set of features."""
        return self.predict(self._one(features))[0]

    def learn(self, features: pl.DataFrame, labels: pl.Series) -> None:
        """Learn a batch: by ``partial_fit``, or by ``fit`` what can only be fitted."""
        check_batch(self._names, features, labels)
        if features.is_empty():
            return
        if self._schema.task == "multiclass":
            self.expect_classes(labels.unique().to_list())
        with keeping_last_good(self, self._estimator):
            frame, target = self._frame(features), labels.to_numpy()
            if self._stateful:
                extra = {} if self._schema.task == "regression" else {"classes": self._classes}
                _partial_fit(self._estimator, frame, target, extra, first=not self._fitted)
            else:
                self._estimator.fit(frame, target)
            self._fitted = True
            check_outputs(self.predict(features.head(_PROBES)), self._schema.task)

    def learn_one(self, features: Mapping[str, FeatureValue], label: LabelValue) -> None:
        """Learn one example, as a batch of one."""
        self.learn(self._one(features), pl.Series("label", [label]))

    def dump(self) -> bytes:
        """Return the state as a pickle."""
        return pickle.dumps((self._estimator, self._classes, self._fitted), protocol=5)

    def load(self, state: bytes) -> None:
        """Load a state that was verified."""
        self._estimator, self._classes, self._fitted = pickle.loads(state)  # noqa: S301 - verified by the registry

    def digest(self) -> str:
        """Hash the estimator's canonical form."""
        return canonical_digest((self._estimator, self._classes, self._fitted))

    def _frame(self, features: pl.DataFrame) -> pd.DataFrame:
        columns = {}
        for series in features.get_columns():
            if series.dtype.is_numeric():
                columns[series.name] = pd.Series(
                    series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
                )
            else:
                columns[series.name] = pd.Series(series.to_list(), dtype=object)
        return pd.DataFrame(columns, columns=list(self._names))

    def _one(self, features: Mapping[str, FeatureValue]) -> pl.DataFrame:
        return pl.DataFrame({name: [features[name]] for name in self._names})


def _learns_on(estimator: Any) -> bool:
    """Return whether every step of an estimator can go on from its state."""
    steps = getattr(estimator, "steps", None)
    if steps is not None:
        return all(_learns_on(step) for _, step in steps)
    inner = getattr(estimator, "transformers", None)
    if inner is not None:
        return all(_learns_on(step) for _, step, _ in inner)
    if estimator in ("passthrough", "drop") or hasattr(estimator, "partial_fit"):
        return True
    tags = getattr(estimator, "__sklearn_tags__", None)
    return tags is not None and hasattr(estimator, "transform") and not tags().requires_fit


def _lost_by_parts(estimator: Any, *, regression: bool) -> str:
    """Return scikit-learn's refusal of a parameter by ``partial_fit``; empty if there is none.

    ``class_weight="balanced"`` and ``early_stopping=True`` are checked there and nowhere before.
    """
    from sklearn.base import clone  # noqa: PLC0415 - a second to import

    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    if not type(estimator).__module__.startswith("sklearn."):
        return ""  # one's own may do anything when it learns
    extra = {} if regression else {"classes": [False, True]}
    try:
        with SeededGenerators(0), ignoring_warnings():  # it warns of two rows
            clone(estimator).partial_fit(np.array([[0.0], [1.0]]), np.array([False, True]), **extra)
    except Exception as error:  # noqa: BLE001 - of two rows, too
        return str(error).splitlines()[0] if "partial_fit" in str(error) else ""
    return ""


def _partial_fit(estimator: Any, frame: Any, target: Any, extra: dict[str, Any], *, first: bool) -> Any:
    """Learn through all steps; each transformer passes its output on."""
    steps = getattr(estimator, "steps", None)
    if steps is not None:
        for _, step in steps[:-1]:
            frame = _transform_on(step, frame, target, first=first)
        return _partial_fit(steps[-1][1], frame, target, extra, first=first)
    return estimator.partial_fit(frame, target, **extra)


def _transform_on(step: Any, frame: Any, target: Any, *, first: bool) -> Any:
    if step == "passthrough":
        return frame
    if hasattr(step, "steps"):
        for _, inner in step.steps:
            frame = _transform_on(inner, frame, target, first=first)
        return frame
    if hasattr(step, "transformers"):
        if first:
            return step.fit_transform(frame, target)
        for _, inner, columns in step.transformers_:
            if not isinstance(inner, str):
                _transform_on(inner, frame[columns], target, first=False)
        return step.transform(frame)
    if hasattr(step, "partial_fit"):
        step.partial_fit(frame)
    return step.transform(frame)
