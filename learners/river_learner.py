"""The learner of River estimators, which learn example by example."""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from sys import intern
from typing import Any, cast

import polars as pl

from headwater.learners.canonical import canonical_digest
from headwater.learners.guard import check_batch, check_one, check_outputs, keeping_last_good
from headwater.learners.learner import Capabilities, Schema
from headwater.spec.data.records import FeatureValue, LabelValue, Output
from headwater.spec.errors import DeclarationError

__all__ = ["RiverLearner"]

_PROBES = 16


class RiverLearner:
    """A River classifier, regressor or pipeline of them.

    A feature that is None is left out of what the estimator sees, as River expects of a missing one.

    Parameters
    ----------
    schema
        What it learns.
    estimator
        Unfitted; kept, not copied.
    batch_rows
        None or 1 calls ``learn_one``; more calls ``learn_many``, which gives other weights.

    Raises
    ------
    DeclarationError
        If the estimator does not fit the task, or cannot learn batches where it is asked to.
    """

    def __init__(self, schema: Schema, estimator: Any, batch_rows: int | None = None) -> None:
        from river import base  # noqa: PLC0415 - a second to import

        self._schema = schema
        self._estimator = estimator
        # The estimator's dicts find interned names by identity.
        self._names = tuple(intern(feature.name) for feature in schema.features)
        self._binary = schema.task == "binary"
        self._many = batch_rows is not None and batch_rows > 1
        last = _last_step(estimator)
        base_class = base.Regressor if schema.task == "regression" else base.Classifier
        if not isinstance(last, base_class):
            raise DeclarationError(
                f"{type(last).__name__} is no {base_class.__name__.lower()} of River, "
                f"and the task is {schema.task}",
                hint=f"end the model with a {base_class.__name__.lower()}",
            )
        if self._many and not hasattr(last, "learn_many"):
            raise DeclarationError(
                f"{type(last).__name__} cannot learn batches",
                hint="leave batch_rows out: it then learns one by one",
            )
        declared = getattr(type(last), "predict_proba_one", None)
        self._proba = schema.task != "regression" and declared is not base.Classifier.predict_proba_one

    @property
    def schema(self) -> Schema:
        """The task and features that the learner was made for."""
        return self._schema

    @property
    def capabilities(self) -> Capabilities:
        """The learner's capabilities; River's classifiers take a new class at any time."""
        return Capabilities(
            stateful=True,
            probabilities=self._proba,
            open_labels=self._schema.task == "multiclass",
            batch_rows=1,
        )

    def expect_classes(self, classes: Sequence[LabelValue]) -> None:
        """Accept any classes."""

    def predict(self, features: pl.DataFrame) -> list[Output]:
        """Predict one output a row."""
        return list(map(self._predict, self._rows(features)))

    def predict_one(self, features: Mapping[str, FeatureValue]) -> Output:
        """Predict for one set of features."""
        return self._predict(self._present(features))

    def learn(self, features: pl.DataFrame, labels: pl.Series) -> None:
        """Learn a batch, one example after the other."""
        check_batch(self._names, features, labels)
        if features.is_empty():
            return
        with keeping_last_good(self, self._estimator):
            if self._many:
                target = labels.to_pandas()
                self._estimator.learn_many(features.to_pandas(), target)
            else:
                learn_one = self._estimator.learn_one
                for row, label in zip(self._rows(features), labels.to_list(), strict=True):
                    learn_one(row, label)
            check_outputs(self.predict(features.head(_PROBES)), self._schema.task)

    def learn_one(self, features: Mapping[str, FeatureValue], label: LabelValue) -> None:
        """Learn one example."""
        check_one(features, label)
        present = self._present(features)
        with keeping_last_good(self, self._estimator):
            self._estimator.learn_one(present, label)
            check_outputs([self._predict(present)], self._schema.task)

    def dump(self) -> bytes:
        """Return the state as a pickle."""
        return pickle.dumps(self._estimator, protocol=5)

    def load(self, state: bytes) -> None:
        """Load a state that was verified."""
        self._estimator = pickle.loads(state)  # noqa: S301 - the registry verified its signature

    def digest(self) -> str:
        """Hash the estimator's canonical form."""
        return canonical_digest(self._estimator, _undrawn)

    def _predict(self, present: dict[str, FeatureValue]) -> Output:
        if self._proba:
            shares = self._estimator.predict_proba_one(present)
            if self._binary:
                return float(shares.get(True, 0.0 if shares else 0.5))
            return {str(name): float(share) for name, share in shares.items()}
        answer = self._estimator.predict_one(present)
        if self._schema.task == "regression":
            return float(answer)
        if self._binary:
            return float(bool(answer))
        return {} if answer is None else {str(answer): 1.0}

    def _rows(self, features: pl.DataFrame) -> Iterator[dict[str, FeatureValue]]:
        names = [intern(name) for name in features.columns]
        columns = [series.to_list() for series in features.get_columns()]
        rows = (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
        if not any(series.null_count() for series in features.get_columns()):
            return rows
        return ({name: value for name, value in row.items() if value is not None} for row in rows)

    def _present(self, features: Mapping[str, FeatureValue]) -> dict[str, FeatureValue]:
        return {name: value for name in self._names if (value := features[name]) is not None}


def _undrawn(value: object) -> frozenset[str]:
    """Name a distribution's unseeded generator: River draws from it neither to learn nor to predict."""
    from river import proba  # noqa: PLC0415 - a second to import

    if isinstance(value, proba.base.Distribution) and getattr(value, "seed", 0) is None:
        return frozenset({"_rng"})
    return frozenset()


def _last_step(estimator: Any) -> object:
    """Return the step of a pipeline that predicts."""
    from river import compose  # noqa: PLC0415 - a second to import

    while isinstance(estimator, compose.Pipeline):
        estimator = list(estimator.steps.values())[-1]
    return cast("object", estimator)
