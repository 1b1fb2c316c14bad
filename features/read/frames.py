"""The records as Polars frames, by column: what the archive keeps and what training reads."""

from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import polars as pl

from headwater.features.values.feature_columns import DecodedField, FeatureColumns, decode
from headwater.features.values.projection import DTYPES
from headwater.spec.data.columns import EXAMPLE, LABEL, PREDICTION
from headwater.spec.data.feature import FeatureKind
from headwater.spec.data.records import LabelValue, Output
from headwater.spec.declaration import Declaration
from headwater.spec.pipeline import Task

__all__ = [
    "EXAMPLE",
    "PREDICTION",
    "ExampleRow",
    "Frames",
    "LabelOfRow",
    "LabelRow",
    "PredictionRow",
    "feature_schema",
    "label_dtype",
]

PredictionRow = tuple[int, int, bytes, int | None]
"""Position, effective time in microseconds, payload, number of its declaration."""

LabelRow = tuple[int, int, int, bool, bytes, bool]
"""Position, revision, effective time in microseconds, late, payload, held back for its class."""

LabelOfRow = tuple[int, bool, bytes]
"""Position of the prediction, late, payload."""

ExampleRow = tuple[int, int, int | None, int, bool, bytes, bytes, int | None]
"""Offset, emission time in microseconds, superseded offset, revision, late, both payloads, number of
the prediction's declaration."""

_LABELS: dict[Task, type[pl.DataType]] = {
    "binary": pl.Boolean,
    "multiclass": pl.String,
    "regression": pl.Float64,
}
_TIME = pl.Datetime("us", "UTC")
_TOLD = {"by": pl.String, "on_receipt": pl.Boolean, "instead_of": pl.Int64}
_LABEL_FIELDS: dict[str, DecodedField] = {
    "prediction_id": ("prediction_id", str),
    "value": ("value", LabelValue),
    "known_at": ("known_at", str),
    "source": ("source", str, "natural"),
    "key": ("key", str | None, None),
    "by": ("by", str, ""),
    "on_receipt": ("on_receipt", bool, False),
    "instead_of": ("instead_of", int | None, None),
}


def label_dtype(task: Task) -> type[pl.DataType]:
    """Return the column type of a task's labels."""
    return _LABELS[task]


def feature_schema(features: Sequence[FeatureKind]) -> dict[str, type[pl.DataType]]:
    """Return the column type of each feature, in order."""
    return {feature.name: DTYPES[feature.dtype] for feature in features}


class Frames:
    """Makes frames of one pipeline's stored records, as they were recorded.

    Features are in the columns of :func:`~headwater.features.values.projection.stored_columns`, of all
    declarations; one that a record's own declaration has not is null.

    Parameters
    ----------
    task
        What the pipeline predicts.
    load
        Gives what its records were recorded under, by number, at least one: called again when a record
        bears a number that is not known yet.

    Attributes
    ----------
    features
        Makes the columns of features.
    """

    def __init__(self, task: Task, load: Callable[[], Mapping[int, Declaration]]) -> None:
        self.features = FeatureColumns(load)
        self._label = _LABELS[task]
        self._by_class = task == "multiclass"
        self._prediction_fields: dict[str, DecodedField] = {
            "id": ("id", str),
            "output": ("output", Output),
            "served_at": ("served_at", str),
            "version": ("version", str, ""),
            "role": ("role", str, "champion"),
            "propensity": ("propensity", float, 1.0),
            "entity": ("entity", dict[str, str] | None, None),
            "ages_s": ("ages_s", dict[str, float] | None, None),
            "due_at": ("due_at", str | None, None),
        }

    def schema(self, columns: Collection[str]) -> dict[str, pl.DataType]:
        """Return the types of some columns of :data:`EXAMPLE`."""
        types: dict[str, pl.DataType] = {
            "offset": pl.Int64(),
            "supersedes": pl.Int64(),
            "revision": pl.Int32(),
            "recorded_by": pl.Int32(),
            "late": pl.Boolean(),
            "propensity": pl.Float64(),
            "output": pl.String() if self._by_class else pl.Float64(),
            "label": self._label(),
            "features": pl.Struct(dict(self.features.types)),
        } | dict.fromkeys(("emitted_at", "known_at", "served_at"), _TIME)
        return {name: types.get(name, pl.String()) for name in columns}

    def predictions(self, rows: Sequence[PredictionRow]) -> pl.DataFrame:
        """Make a frame with position, recorded_at, recorded_by and the columns of a prediction."""
        numbers = self.features.numbers([row[3] for row in rows])
        columns = {
            "position": pl.Series([row[0] for row in rows], dtype=pl.Int64),
            "recorded_at": _times([row[1] for row in rows]),
            "recorded_by": numbers,
        }
        payloads, names = [row[2] for row in rows], (*PREDICTION, "due_at")
        return pl.DataFrame(columns | self._prediction_columns(payloads, numbers, names))

    def labels(self, rows: Sequence[LabelRow]) -> pl.DataFrame:
        """Make a frame with position, prediction_id, label and the columns of its revision."""
        columns = {
            "position": pl.Series([row[0] for row in rows], dtype=pl.Int64),
            "revision": pl.Series([row[1] for row in rows], dtype=pl.Int32),
            "received_at": _times([row[2] for row in rows]),
            "late": pl.Series([row[3] for row in rows], dtype=pl.Boolean),
            "held": pl.Series([row[5] for row in rows], dtype=pl.Boolean),
        }
        names = ("prediction_id", "label", "source", "key", "known_at", *_TOLD)
        return pl.DataFrame(columns | self._label_columns([row[4] for row in rows], names))

    def served(
        self, rows: Sequence[PredictionRow], labels: Sequence[LabelOfRow], columns: Sequence[str]
    ) -> pl.DataFrame:
        """Make a frame of predictions with their newest label, if their first one came in time.

        Columns: recorded_at, recorded_by, label (null without), and the wanted ones of a prediction.
        """
        known = pl.DataFrame(
            {
                "position": pl.Series([row[0] for row in labels], dtype=pl.Int64),
                "late": pl.Series([row[1] for row in labels], dtype=pl.Boolean),
            }
            | self._label_columns([row[2] for row in labels], ("label",))
        )
        newest = (
            known.group_by("position", maintain_order=True)
            .agg(pl.col("late").first(), pl.col("label").last())
            .filter(~pl.col("late"))
        )
        numbers = self.features.numbers([row[3] for row in rows])
        made = {
            "position": pl.Series([row[0] for row in rows], dtype=pl.Int64),
            "recorded_at": _times([row[1] for row in rows]),
            "recorded_by": numbers,
        }
        frame = pl.DataFrame(made | self._prediction_columns([row[2] for row in rows], numbers, columns))
        return frame.join(
            newest.select("position", "label"), on="position", how="left", maintain_order="left"
        )

    def beside(self, served: pl.DataFrame, outputs: Sequence[tuple[int, str, bytes]]) -> pl.DataFrame:
        """Add a row for each shadow's output behind its prediction's row, with the same other columns.

        Parameters
        ----------
        served
            As :meth:`served` gives it.
        outputs
            Position, version and output as JSON.
        """
        if not outputs:
            return served
        made = _shadows(outputs, by_class=self._by_class)
        own = [name for name in served.columns if name == "position" or name not in made.columns]
        shadows = served.select(own).join(made, on="position").select(served.columns)
        return pl.concat([served, shadows]).sort("position", maintain_order=True)

    def examples(self, rows: Sequence[ExampleRow], columns: Collection[str]) -> pl.DataFrame:
        """Make a frame with some columns of :data:`EXAMPLE`, in the order in which they are named."""
        made: dict[str, pl.Series] = {}
        if "offset" in columns:
            made["offset"] = pl.Series([row[0] for row in rows], dtype=pl.Int64)
        if "emitted_at" in columns:
            made["emitted_at"] = _times([row[1] for row in rows])
        if "supersedes" in columns:
            made["supersedes"] = pl.Series([row[2] for row in rows], dtype=pl.Int64)
        if "revision" in columns:
            made["revision"] = pl.Series([row[3] for row in rows], dtype=pl.Int32)
        if "late" in columns:
            made["late"] = pl.Series([row[4] for row in rows], dtype=pl.Boolean)
        numbers = self.features.numbers([row[7] for row in rows])
        made["recorded_by"] = numbers
        if names := [name for name in PREDICTION if name in columns]:
            made |= self._prediction_columns([row[5] for row in rows], numbers, names)
        if names := [name for name in LABEL if name in columns]:
            made |= self._label_columns([row[6] for row in rows], names)
        return pl.DataFrame({name: made[name] for name in columns})

    def _prediction_columns(
        self, payloads: Sequence[bytes], numbers: pl.Series, names: Sequence[str]
    ) -> dict[str, pl.Series]:
        """Make columns of predictions' payloads, decoded once where all are of one declaration."""
        made: dict[str, pl.Series] = {}
        fields = {name: "id" if name == "prediction_id" else name for name in names}
        own = self.features.own_of(numbers) if "features" in names else None
        if "features" in names and own is None:
            del fields["features"]
            made["features"] = self.features.of_several(payloads, numbers)
        wanted = (
            self._prediction_fields if own is None else {"features": own.field} | self._prediction_fields
        )
        records = decode(payloads, tuple(wanted[field] for field in fields.values()))
        for name, field in fields.items():
            if own is not None and field == "features":
                made[name] = self.features.struct(own.frame([record.features for record in records]))
            else:
                made[name] = self._prediction_column(field, records)
        return {name: made[name] for name in names}

    def _prediction_column(self, field: str, records: Sequence[Any]) -> pl.Series:
        values = list(map(attrgetter(field), records))
        match field:
            case "served_at" | "due_at":
                return _moments(values)
            case "entity":
                texts = [msgspec.json.encode(keys).decode() if keys else "{}" for keys in values]
                return pl.Series(texts, dtype=pl.String)
            case "ages_s":
                ages = [msgspec.json.encode(of).decode() if of else None for of in values]
                return pl.Series(ages, dtype=pl.String)
            case "propensity":
                return pl.Series(values, dtype=pl.Float64)
            case "output" if self._by_class:
                texts = [msgspec.json.encode(shares).decode() for shares in values]
                return pl.Series(texts, dtype=pl.String)
            case "output":
                return pl.Series(values, dtype=pl.Float64, strict=False)
            case _:
                return pl.Series(values, dtype=pl.String)

    def _label_columns(self, payloads: Sequence[bytes], names: Sequence[str]) -> dict[str, pl.Series]:
        fields = {name: "value" if name == "label" else name for name in names}
        records = decode(payloads, tuple(map(_LABEL_FIELDS.__getitem__, fields.values())))
        made = {}
        for name, field in fields.items():
            values = list(map(attrgetter(field), records))
            if name == "known_at":
                made[name] = _moments(values)
            elif name == "label":
                made[name] = pl.Series(values, dtype=self._label, strict=False)
            else:
                made[name] = pl.Series(values, dtype=_TOLD.get(name, pl.String))
        return made


def _shadows(outputs: Sequence[tuple[int, str, bytes]], *, by_class: bool) -> pl.DataFrame:
    """Make a frame of what shadows said: what differs from their predictions' own rows."""
    texts = [output for _, _, output in outputs]
    column = pl.Series([text.decode() for text in texts], dtype=pl.String)
    if not by_class:
        numbers = msgspec.json.decode(b"[" + b",".join(texts) + b"]", type=list[float])
        column = pl.Series(numbers, dtype=pl.Float64)
    return pl.DataFrame(
        {
            "position": pl.Series([row[0] for row in outputs], dtype=pl.Int64),
            "version": pl.Series([row[1] for row in outputs], dtype=pl.String),
            "output": column,
            "role": pl.repeat("shadow", len(outputs), dtype=pl.String, eager=True),
            "propensity": pl.repeat(1.0, len(outputs), dtype=pl.Float64, eager=True),
        }
    )


def _moments(texts: Sequence[str]) -> pl.Series:
    """Read times as the log writes them: UTC, ISO 8601, with a Z."""
    parsed = pl.Series(texts, dtype=pl.String).str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us")
    return parsed.dt.replace_time_zone("UTC")


def _times(moments_us: Sequence[int]) -> pl.Series:
    return pl.Series(moments_us, dtype=pl.Int64).cast(_TIME)
