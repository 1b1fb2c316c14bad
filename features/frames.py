"""The records as Polars frames, by column: what the archive keeps and what training reads."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec
import polars as pl

from headwater.spec.feature import FeatureKind, python_type
from headwater.spec.pipeline import Pipeline, Task
from headwater.spec.records import LabelValue, Output

__all__ = ["ExampleRow", "Frames", "LabelRow", "PredictionRow", "feature_schema", "label_dtype"]

PredictionRow = tuple[int, int, bytes]
"""Position, effective time in microseconds, payload."""

LabelRow = tuple[int, int, int, bool, bytes]
"""Position, revision, effective time in microseconds, late, payload."""

ExampleRow = tuple[int, int, int | None, int, bool, bytes, bytes]
"""Offset, emission time in microseconds, superseded offset, revision, late, and both payloads."""

_DTYPES: dict[str, type[pl.DataType]] = {
    "float": pl.Float64,
    "int": pl.Int64,
    "str": pl.String,
    "bool": pl.Boolean,
}
_LABELS: dict[Task, type[pl.DataType]] = {
    "binary": pl.Boolean,
    "multiclass": pl.String,
    "regression": pl.Float64,
}
_TIME = pl.Datetime("us", "UTC")


def label_dtype(task: Task) -> type[pl.DataType]:
    """Give the column type of a task's labels."""
    return _LABELS[task]


def feature_schema(features: Sequence[FeatureKind]) -> dict[str, type[pl.DataType]]:
    """Give the column type of each feature, in order."""
    return {feature.name: _DTYPES[feature.dtype] for feature in features}


class _StoredPrediction(Protocol):
    id: str
    features: object
    output: Output
    served_at: datetime
    version: str
    role: str
    propensity: float
    entity: msgspec.Raw


class _StoredLabel(msgspec.Struct):
    prediction_id: str
    value: LabelValue
    known_at: datetime
    source: str
    key: str


class Frames:
    """Makes frames of one pipeline's stored records.

    A feature that was added after a record was stored is null in it; one that was dropped is left out.

    Parameters
    ----------
    pipeline
        Gives the features' names and types, and the task.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._features = feature_schema(pipeline.features)
        self._label = _LABELS[pipeline.task]
        self._by_class = pipeline.task == "multiclass"
        features = msgspec.defstruct(
            "Features",
            [(f.name, python_type(f.dtype) | None, None) for f in pipeline.features],
        )
        stored = msgspec.defstruct(
            "StoredPrediction",
            [
                ("id", str),
                ("features", features),
                ("output", Output),
                ("served_at", datetime),
                ("version", str),
                ("role", str),
                ("propensity", float),
                ("entity", msgspec.Raw),
            ],
        )
        self._predictions: msgspec.json.Decoder[list[_StoredPrediction]] = msgspec.json.Decoder(
            list[stored]  # type: ignore[valid-type]
        )
        self._labels = msgspec.json.Decoder(list[_StoredLabel])

    def predictions(self, rows: Sequence[PredictionRow]) -> pl.DataFrame:
        """Columns: position, recorded_at, and those of :meth:`_prediction_columns`."""
        columns = {
            "position": pl.Series([row[0] for row in rows], dtype=pl.Int64),
            "recorded_at": _times([row[1] for row in rows]),
        }
        return pl.DataFrame(columns | self._prediction_columns([row[2] for row in rows]))

    def labels(self, rows: Sequence[LabelRow]) -> pl.DataFrame:
        """Columns: position, prediction_id, label and what is known of it."""
        found = self._labels.decode(_joined([row[4] for row in rows]))
        return pl.DataFrame(
            {
                "position": pl.Series([row[0] for row in rows], dtype=pl.Int64),
                "prediction_id": pl.Series([label.prediction_id for label in found], dtype=pl.String),
                "label": pl.Series([label.value for label in found], dtype=self._label, strict=False),
                "source": pl.Series([label.source for label in found], dtype=pl.String),
                "key": pl.Series([label.key for label in found], dtype=pl.String),
                "known_at": pl.Series([label.known_at for label in found], dtype=_TIME),
                "revision": pl.Series([row[1] for row in rows], dtype=pl.Int32),
                "received_at": _times([row[2] for row in rows]),
                "late": pl.Series([row[3] for row in rows], dtype=pl.Boolean),
            }
        )

    def examples(self, rows: Sequence[ExampleRow]) -> pl.DataFrame:
        """Columns: offset, prediction, label and where they came from; features as a struct."""
        labels = self._labels.decode(_joined([row[6] for row in rows]))
        columns = {
            "offset": pl.Series([row[0] for row in rows], dtype=pl.Int64),
            "emitted_at": _times([row[1] for row in rows]),
            "supersedes": pl.Series([row[2] for row in rows], dtype=pl.Int64),
            "revision": pl.Series([row[3] for row in rows], dtype=pl.Int32),
            "late": pl.Series([row[4] for row in rows], dtype=pl.Boolean),
            "label": pl.Series([label.value for label in labels], dtype=self._label, strict=False),
            "source": pl.Series([label.source for label in labels], dtype=pl.String),
            "known_at": pl.Series([label.known_at for label in labels], dtype=_TIME),
        }
        return pl.DataFrame(columns | self._prediction_columns([row[5] for row in rows]))

    def _prediction_columns(self, payloads: Sequence[bytes]) -> dict[str, pl.Series]:
        """Columns: prediction_id, served_at, version, role, propensity, entity, output, features."""
        found = self._predictions.decode(_joined(payloads))
        outputs: list[Output] | list[str] = [prediction.output for prediction in found]
        if self._by_class:
            outputs = [msgspec.json.encode(output).decode() for output in outputs]
        features = [prediction.features for prediction in found]
        return {
            "prediction_id": pl.Series([p.id for p in found], dtype=pl.String),
            "served_at": pl.Series([p.served_at for p in found], dtype=_TIME),
            "version": pl.Series([p.version for p in found], dtype=pl.String),
            "role": pl.Series([p.role for p in found], dtype=pl.String),
            "propensity": pl.Series([p.propensity for p in found], dtype=pl.Float64),
            "entity": pl.Series([bytes(p.entity).decode() for p in found], dtype=pl.String),
            "output": pl.Series(
                outputs, dtype=pl.String if self._by_class else pl.Float64, strict=False
            ),
            "features": pl.DataFrame(
                {
                    name: pl.Series([getattr(f, name) for f in features], dtype=dtype, strict=False)
                    for name, dtype in self._features.items()
                }
            ).to_struct("features"),
        }


def _joined(payloads: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(payloads) + b"]"


def _times(moments_us: Sequence[int]) -> pl.Series:
    return pl.Series(moments_us, dtype=pl.Int64).cast(_TIME)
