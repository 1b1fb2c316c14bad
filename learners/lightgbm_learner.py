"""The learner of LightGBM: fitted from scratch, or its leaf values refitted to new examples."""

import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from headwater.learners.boosting_params import boosting_parameters, unrefittable_parameter
from headwater.learners.canonical import canonical_digest
from headwater.learners.guard import check_batch, check_outputs, learning
from headwater.learners.learner import Capabilities, Schema
from headwater.spec.data.records import FeatureValue, LabelValue, Output
from headwater.spec.errors import DeclarationError, NotEnoughError, SchemaError, UnlearnableError, few

__all__ = ["Boosted", "BoostingLearner"]

_BUCKETS = 1_024
_PROBES = 16
_ONE_AGAINST_ALL = ("multiclassova", "multiclass_ova", "ova", "ovr")
_LEAST = 1e-300


@dataclass(frozen=True, slots=True)
class Boosted:
    """A LightGBM estimator with how it is fine-tuned.

    Parameters
    ----------
    estimator
        An unfitted ``LGBMClassifier`` or ``LGBMRegressor``.
    decay
        Share of its old value that a leaf keeps at each update, between 0 and 1
        (``Booster.refit``'s ``decay_rate``).
    """

    estimator: Any
    decay: float = 0.9


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    classes: list[str]
    model: str


class BoostingLearner:
    """A LightGBM booster.

    Its first batch grows the trees; later batches keep them and refit the values of their leaves
    (LightGBM's ``Booster.refit``). Strings are hashed to 1,024 categories by CRC-32, so that a million
    of them take no more room than a few. Computes deterministically. A parameter that would be dropped
    is refused; one that a refit would not honour makes it a learner that is only fitted.

    Parameters
    ----------
    schema
        What it learns.
    estimator
        ``LGBMClassifier``, ``LGBMRegressor`` or one of them in :class:`Boosted`.
    seed, threads
        Of the computation; an estimator's own ``random_state`` goes first.

    Raises
    ------
    DeclarationError
        If the estimator does not fit the task, or has a parameter that cannot be honoured.
    """

    def __init__(self, schema: Schema, estimator: Any, seed: int = 0, threads: int = 1) -> None:
        boosted = estimator if isinstance(estimator, Boosted) else Boosted(estimator)
        name = type(boosted.estimator).__name__
        fitting_class = "LGBMRegressor" if schema.task == "regression" else "LGBMClassifier"
        if name != fitting_class:
            raise DeclarationError(
                f"{name} does not fit a {schema.task} task", hint=f"return an {fitting_class}"
            )
        if not 0.0 <= boosted.decay <= 1.0:
            raise DeclarationError(f"decay={boosted.decay} is not in [0, 1]", hint="write decay=0.9")
        self._schema = schema
        self._name = name
        self._decay = boosted.decay
        self._names = tuple(feature.name for feature in schema.features)
        self._texts = [i for i, f in enumerate(schema.features) if f.dtype == "str"]
        self._params, self._trees = boosting_parameters(boosted.estimator, schema, seed, threads)
        self._lost = unrefittable_parameter(self._params)
        self._classes = sorted(schema.classes)
        self._booster: Any = None

    @property
    def schema(self) -> Schema:
        """The task and features that the learner was made for."""
        return self._schema

    @property
    def capabilities(self) -> Capabilities:
        """The learner's capabilities."""
        why = f"LightGBM's {self._lost} would be lost in a refit" if self._lost else ""
        return Capabilities(not self._lost, True, open_labels=False, batch_rows=None, fit_only=why)

    def expect_classes(self, classes: Sequence[LabelValue]) -> None:
        """Settle the classes before the trees are grown; refuse new ones afterwards."""
        if self._schema.task != "multiclass":
            return
        names = {str(name) for name in classes}
        if self._booster is None:
            self._classes = sorted(names | set(self._classes))
        elif new := sorted(names - set(self._classes)):
            raise SchemaError(
                f"the trees were grown without the classes {few(new)}",
                hint='write Stateful(reset=Reset(every="30d")), or take a River estimator',
            )

    def predict(self, features: pl.DataFrame) -> list[Output]:
        """Predict one output a row."""
        if features.is_empty():
            return []
        return self._outputs(self._matrix(features))

    def predict_one(self, features: Mapping[str, FeatureValue]) -> Output:
        """Predict for one set of features."""
        row = [_number(features[name]) for name in self._names]
        return self._outputs(np.array([row], dtype=np.float64))[0]

    def learn(self, features: pl.DataFrame, labels: pl.Series) -> None:
        """Grow the trees on the first batch, refit their leaves on later ones."""
        check_batch(self._names, features, labels)
        if features.is_empty():
            return
        self.expect_classes(labels.unique().to_list() if self._schema.task == "multiclass" else [])
        matrix, target = self._matrix(features), self._target(labels)
        with learning(self._name):
            booster = (
                self._grow(matrix, target) if self._booster is None else self._refit(matrix, target)
            )
        previous = self._booster
        # Through text, so that a state that goes on and one that was loaded are the same to the bit.
        self._booster = _parse(booster.model_to_string())
        try:
            check_outputs(self._outputs(matrix[:_PROBES]), self._schema.task)
        except Exception:
            self._booster = previous
            raise

    def learn_one(self, features: Mapping[str, FeatureValue], label: LabelValue) -> None:
        """Learn one example, as a batch of one."""
        frame = pl.DataFrame({name: [features[name]] for name in self._names})
        self.learn(frame, pl.Series("label", [label]))

    def dump(self) -> bytes:
        """Return the classes and the trees as JSON with LightGBM's own text."""
        model = "" if self._booster is None else self._booster.model_to_string()
        return msgspec.json.encode(_State(self._classes, model))

    def load(self, state: bytes) -> None:
        """Load a state that was verified."""
        decoded = msgspec.json.decode(state, type=_State)
        self._classes = decoded.classes
        self._booster = _parse(decoded.model) if decoded.model else None

    def digest(self) -> str:
        """Hash the classes and the trees' text."""
        return canonical_digest(self.dump())

    def _grow(self, matrix: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> Any:
        lightgbm = _lightgbm()
        params = dict(self._params)
        if self._schema.task == "multiclass":
            params["num_class"] = len(self._classes)
        data = lightgbm.Dataset(
            matrix, target, categorical_feature=self._texts, params={"verbosity": -1}, free_raw_data=True
        )
        return lightgbm.train(params, data, num_boost_round=self._trees)

    def _refit(self, matrix: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> Any:
        if self._lost:
            raise UnlearnableError(
                f"the trees cannot learn on: LightGBM's {self._lost} would be lost in a refit",
                hint='write update=Stateless(window="90d"), which grows them anew',
            )
        return self._booster.refit(
            matrix,
            target,
            decay_rate=self._decay,
            dataset_params={"bagging_freq": 0},  # a refit takes all rows; of one, a bag would be empty
            num_threads=self._params["num_threads"],
            deterministic=True,
            force_row_wise=True,
            verbosity=-1,
        )

    def _outputs(self, matrix: npt.NDArray[np.float64]) -> list[Output]:
        if self._booster is None:
            raise NotEnoughError("the learner has learned nothing yet", hint="headwater train")
        outputs = self._booster.predict(matrix, num_threads=self._params["num_threads"])
        if self._schema.task != "multiclass":
            return [float(value) for value in outputs]
        if self._params["objective"] in _ONE_AGAINST_ALL:  # its chances do not come to one
            outputs = outputs / np.maximum(outputs.sum(axis=1, keepdims=True), _LEAST)
        return [dict(zip(self._classes, map(float, row), strict=True)) for row in outputs]

    def _target(self, labels: pl.Series) -> npt.NDArray[np.float64]:
        if self._schema.task == "multiclass":
            place = {name: float(i) for i, name in enumerate(self._classes)}
            return np.array([place[name] for name in labels.to_list()], dtype=np.float64)
        return labels.cast(pl.Float64).to_numpy()

    def _matrix(self, features: pl.DataFrame) -> npt.NDArray[np.float64]:
        columns = [_numbers(series) for series in features.get_columns()]
        return np.column_stack([column.fill_null(float("nan")).to_numpy() for column in columns])


def _numbers(series: pl.Series) -> pl.Series:
    if series.dtype != pl.String:
        return series.cast(pl.Float64)
    known = {text: _number(text) for text in series.unique().to_list() if text is not None}
    if not known:
        return pl.Series(series.name, [None] * len(series), dtype=pl.Float64)
    return series.replace_strict(known, default=None, return_dtype=pl.Float64)


def _number(value: FeatureValue) -> float:
    if value is None:
        return float("nan")
    return float(zlib.crc32(value.encode()) % _BUCKETS) if isinstance(value, str) else float(value)


def _parse(model: str) -> Any:
    return _lightgbm().Booster(model_str=model)


@cache
def _lightgbm() -> Any:
    """Import LightGBM, an extra, and silence its remarks about hashed categories."""
    import lightgbm  # noqa: PLC0415 - an extra

    logger = logging.getLogger("headwater.lightgbm")
    logger.setLevel(logging.ERROR)
    lightgbm.register_logger(logger)
    return lightgbm
