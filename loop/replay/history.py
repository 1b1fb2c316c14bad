"""A table of predictions with their labels: its columns, how they are read, and its rows as records."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import msgspec
import pandas as pd
import polars as pl

from headwater.features.values.column_values import Fitted, Kind, fit
from headwater.features.values.spelling import ISO, Spelling
from headwater.features.values.table_file import read_table
from headwater.spec.data.columns import HISTORY
from headwater.spec.data.label import DUE_AT
from headwater.spec.data.records import Label, Output, Prediction
from headwater.spec.errors import NonFiniteError, SchemaError, few
from headwater.spec.pipeline import Pipeline, Task

__all__ = ["Columns", "History", "Progress", "untold"]

_LABELS: dict[Task, Kind] = {"binary": "bool", "multiclass": "str", "regression": "float"}
_WORDS: dict[Kind, str] = {"id": "id", "time": "time with a zone", "str": "text"}
_WRITE: dict[Kind, str] = {
    "float": "write numbers as 1.5",
    "int": "write whole numbers of 64 bits as 3",
    "str": "write text",
    "id": "write text or whole numbers",
}


class _Part(NamedTuple):
    """A column that is read: what it becomes, its name in the table, and its kind."""

    name: str
    column: str
    kind: Kind | None
    required: bool


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """The names of a table's columns, and how a text file is read.

    Features bear their own names, or those of their ``column``.

    Parameters
    ----------
    id, served_at, label, known_at
        The prediction's id and time, its label, and when that became known.
    due_at
        When its label is due, may be null; read if the label rule has ``due="due_at"``.
    output
        The predicted output. If it is None, nothing was predicted, and the output is 0.5, 0 or no class.
    null
        Words that stand for null in a text file, beside the empty field, such as ``("NA",)``; in quotes
        they are text.
    delimiter
        The character that splits the fields of a text file; a comma, or a tab in a .tsv, if None.
    true, false
        Words for true and false in a text file, capitals or not.
    time_format
        The form of times that are text, such as ``"%d.%m.%Y %H:%M"``; ISO 8601 if None.
    zone
        The zone of times that say none, such as ``"Europe/Berlin"``; if None, they are refused.
    """

    id: str = "id"
    served_at: str = "served_at"
    label: str = "label"
    known_at: str = "known_at"
    due_at: str = "due_at"
    output: str | None = None
    null: tuple[str, ...] = ()
    delimiter: str | None = None
    true: tuple[str, ...] = ISO.true
    false: tuple[str, ...] = ISO.false
    time_format: str | None = None
    zone: str | None = None

    @property
    def spelling(self) -> Spelling:
        """How values are spelled.

        Raises
        ------
        SchemaError
            If the options do not go together.
        """
        words = (*self.true, *self.false)
        if twice := [word for word in self.null if word.lower() in map(str.lower, words)]:
            raise SchemaError(
                f"{few(map(repr, twice))} would be both null and a boolean",
                hint="give other words for null, or for true and false",
            )
        split = self.delimiter
        if split is not None and (len(split.encode()) != 1 or split in '"\r\n'):
            raise SchemaError(
                f"delimiter {split!r} splits no fields",
                hint="give one character of ASCII, such as ';', that is no quote and ends no line",
            )
        return Spelling(true=self.true, false=self.false, time_format=self.time_format, zone=self.zone)


Progress = Callable[[int, int], None]
"""Takes the part done and the whole, in rows or bytes."""


def untold(done: int, whole: int) -> None:
    """Tell nobody."""


class History:
    """A table of predictions with their labels, opened; its values are fitted as it is read.

    Parameters
    ----------
    pipeline
        Declares the types.
    source, columns, told
        As for :func:`headwater.loop.replay.import_history.import_history`.

    Raises
    ------
    NotFoundError
        If the file does not exist.
    SchemaError
        If a column is missing, would be two things, or the options do not go together.

    Attributes
    ----------
    rows
        How many rows were read.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        source: Path | pl.DataFrame | pd.DataFrame,
        columns: Columns | None = None,
        told: Progress = untold,
    ) -> None:
        self._pipeline = pipeline
        self._columns = columns = columns or Columns()
        self._spelling = columns.spelling
        self._parts = _parts(pipeline, columns)
        self._table = read_table(
            source, [part.column for part in self._parts], columns.null, columns.delimiter
        )
        if not self._table.is_text and (columns.true, columns.false) != (ISO.true, ISO.false):
            raise SchemaError(
                "words for true and false are given, and the table is no text file",
                hint="leave them out: a typed table has booleans, or 1 and 0",
            )
        self._told = told
        self._done = 0
        self._row: int | None = None  # no row stands for an error of the file itself
        self.rows = 0

    @property
    def unused(self) -> tuple[str, ...]:
        """The table's columns that are not read."""
        read = {part.column for part in self._parts}
        return tuple(name for name in self._table.columns if name not in read)

    def tell(self) -> None:
        """Tell the progress again."""
        self._told(self._done, self._table.size)

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield the rows, a few thousand at a time, with the declared types.

        The columns are called ``id``, ``served_at``, ``label``, ``known_at``, ``due_at`` and ``output``
        if there are such, and as the features.

        Raises
        ------
        SchemaError
            If a value is not of the declared type or missing where it may not be, a time has no zone, or
            a label has no time.
        """
        for done, frame in self._table.chunks():
            self._done = done
            yield self._fitted(frame)
            self._row = None
            self.rows += frame.height
            self.tell()

    def records(self) -> Iterator[tuple[Prediction, Label | None]]:
        """Yield each prediction with its label, if that is known."""
        names = self._pipeline.feature_names
        uninformed = _uninformed_output(self._pipeline)
        for frame in self.frames():
            features = zip(*(frame[name].to_list() for name in names), strict=True)
            rows = zip(*(frame[name].to_list() for name in HISTORY), strict=True)
            outputs = frame["output"].to_list() if self._columns.output else repeat(uninformed)
            dues = frame[DUE_AT].to_list() if DUE_AT in frame.columns else repeat(None)
            records = zip(features, rows, outputs, dues, strict=False)
            for number, (values, row, output, due_at) in enumerate(records, self.rows):
                self._row = number
                id_, served_at, value, known_at = row
                prediction = Prediction(
                    id=id_,
                    features=dict(zip(names, values, strict=True)),
                    output=output,
                    served_at=served_at,
                    role="imported",
                    due_at=due_at,
                )
                known = value is not None
                label = Label(prediction_id=id_, value=value, known_at=known_at) if known else None
                yield prediction, label

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Say in an error where the row stands that was read last, or is being recorded."""
        try:
            yield
        except SchemaError as error:
            if self._row is None:
                raise
            where = self._table.place(self._row)
            raise type(error)(f"{where}: {error.what}", hint=error.hint) from error

    def _fitted(self, frame: pl.DataFrame) -> pl.DataFrame:
        text = self._table.is_text
        columns = []
        for part in self._parts:
            column = frame[part.column]
            if part.kind is not None:
                fitted = fit(column, part.kind, text=text, spelling=self._spelling)
                if fitted.misfits:
                    self._row = self.rows + fitted.first_misfit
                    raise self._misfit(column, fitted, part.kind)
                column = fitted.values
            self._check(column, part)
            columns.append(column.alias(part.name))
        fitted_frame = pl.DataFrame(columns)
        self._check_times(fitted_frame)
        return fitted_frame

    def _misfit(self, column: pl.Series, fitted: Fitted, kind: Kind) -> SchemaError:
        text = self._table.is_text
        dtype = "" if text else f" ({column.dtype})"
        others = f"; so do {fitted.misfits - 1:,} rows near it" if fitted.misfits > 1 else ""
        hint = "convert the column, or declare the feature with the type that it has"
        if kind == "time":
            hint = _write_times(self._columns)
        elif text:
            write = _write_booleans(self._columns) if kind == "bool" else _WRITE[kind]
            hint = f"{write}; leave the field empty for null, or name the word for it: --null NA"
        return SchemaError(
            f"column {column.name!r}{dtype} holds {_text_of(column, fitted.first_misfit)}, which is no "
            f"{_WORDS.get(kind, kind)}{others}",
            hint=hint,
        )

    def _check(self, column: pl.Series, part: _Part) -> None:
        """Check that numbers are finite, and that nothing is missing that may not be."""
        if part.kind == "float":
            wrong = column.is_finite().not_().fill_null(value=False)
            if wrong.any():
                row = int(wrong.arg_true()[0])
                self._row = self.rows + row
                raise NonFiniteError(
                    f"column {part.column!r} holds {column[row]}",
                    hint="write null (None) for a value that is not known, and declare the feature "
                    "nullable",
                )
        if part.required and column.null_count():
            missing = column.is_null()
            self._row = self.rows + int(missing.arg_true()[0])
            raise SchemaError(
                f"column {part.column!r} is null; {int(missing.sum()):,} rows are",
                hint="fill it, leave the row out, or declare the feature nullable if it is one",
            )

    def _check_times(self, frame: pl.DataFrame) -> None:
        lacking = frame["known_at"].is_null() & frame["label"].is_not_null()
        if lacking.any():
            row = int(lacking.arg_true()[0])
            self._row = self.rows + row
            raise SchemaError(
                f"label {frame['label'][row]!r:.60} has no {self._columns.known_at!r}"
                f"; {int(lacking.sum()):,} rows lack it",
                hint="write when it became known, or leave the label empty until it is",
            )


def _parts(pipeline: Pipeline, columns: Columns) -> list[_Part]:
    """Return what is read; the check of records covers an output by class."""
    parts = [
        _Part("id", columns.id, "id", required=True),
        _Part("served_at", columns.served_at, "time", required=True),
        _Part("known_at", columns.known_at, "time", required=False),
        _Part("label", columns.label, _LABELS[pipeline.task], required=False),
    ]
    if pipeline.label.due == DUE_AT:
        parts.append(_Part(DUE_AT, columns.due_at, "time", required=False))
    if columns.output is not None:
        kind: Kind | None = None if pipeline.task == "multiclass" else "float"
        parts.append(_Part("output", columns.output, kind, required=True))
    parts += [
        _Part(feature.name, feature.source_column, feature.dtype, required=not feature.nullable)
        for feature in pipeline.features
    ]
    kinds: dict[str, Kind] = {}
    for part in parts:
        if part.kind is not None and kinds.setdefault(part.column, part.kind) != part.kind:
            raise SchemaError(
                f"column {part.column!r} would be both {kinds[part.column]} and {part.kind}",
                hint="give each a column of its own: --id, --served-at, --label, --known-at",
            )
    labelled = [part.name for part in parts if part.column == columns.label and part.name != "label"]
    if any(name in pipeline.feature_names for name in labelled):
        raise SchemaError(
            f"column {columns.label!r} would be both the label and feature {labelled[-1]!r}",
            hint="give each a column of its own: --label",
        )
    return parts


def _uninformed_output(pipeline: Pipeline) -> Output:
    """Return the output of a model that has learned nothing."""
    if pipeline.task == "multiclass":
        return {}
    return 0.5 if pipeline.task == "binary" else 0.0


def _write_times(columns: Columns) -> str:
    if columns.time_format is None:
        local = "" if columns.zone is not None else ", or name the zone of times without: --zone"
        return f"write times as 2013-01-01T05:15:00Z{local}"
    zone = "" if columns.zone is None else f", as the clocks of {columns.zone} had it, once"
    return f"write times in the form {columns.time_format!r}{zone}"


def _write_booleans(columns: Columns) -> str:
    return f"write one of {few(columns.true)} for true, and of {few(columns.false)} for false"


def _text_of(column: pl.Series, row: int) -> str:
    try:
        return repr(column[row])[:60]
    except OverflowError:  # a time beyond Python's
        return "a time out of range"
