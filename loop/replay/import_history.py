"""Import history from before headwater: a table of predictions with their labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pandas as pd
import polars as pl

from headwater.features.record.log_writer import LogWriter
from headwater.features.values.column_values import Fitted, Kind, fit
from headwater.features.values.table_file import Table, read_table
from headwater.spec.data.records import Label, Output, Prediction
from headwater.spec.errors import NonFiniteError, SchemaError
from headwater.spec.pipeline import Pipeline, Task

__all__ = ["Columns", "conformed", "import_history"]

_LABELS: dict[Task, Kind] = {"binary": "bool", "multiclass": "str", "regression": "float"}
_WORDS: dict[Kind, str] = {"id": "id", "time": "time with a zone", "str": "text"}
_WRITE: dict[Kind, str] = {
    "float": "write numbers as 1.5",
    "int": "write whole numbers of 64 bits as 3",
    "bool": "write true and false, or 1 and 0",
    "str": "write text",
    "id": "write text or whole numbers",
    "time": "write times as 2013-01-01T05:15:00Z",
}


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """The names of a table's columns; features bear their own names.

    Parameters
    ----------
    id, served_at, label, known_at
        The prediction's id and time, its label, and when that became known.
    output
        The predicted output. If it is None, nothing was predicted, and the output is 0.5, 0 or no class.
    null
        Words that stand for null in a CSV, beside the empty field, such as ``("NA",)``; in quotes they
        are text.
    """

    id: str = "id"
    served_at: str = "served_at"
    label: str = "label"
    known_at: str = "known_at"
    output: str | None = None
    null: tuple[str, ...] = ()


def import_history(
    log: LogWriter, source: Path | pl.DataFrame | pd.DataFrame, columns: Columns | None = None
) -> int:
    """Log a table of past predictions and labels; each counts as received at its own time.

    Values must be of the declared types, as :mod:`headwater.features.values.column_values` has them. A
    label needs the time when it became known; a row without a label may have one.

    Parameters
    ----------
    log
        The log that gets them.
    source
        A Parquet, CSV or TSV file (the text ones may be packed by gzip), or a Polars or pandas
        dataframe; a row a prediction. A CSV is read as text, by the declared types.
    columns
        The names of the columns.

    Returns
    -------
    int
        How many records were new.

    Raises
    ------
    NotFoundError
        If the file does not exist.
    SchemaError, ConflictError, StorageError
        If a row does not fit; nothing is recorded then. The error names its line in a CSV, and its
        number from 0 in other tables.
    """
    columns = columns or Columns()
    table = conformed(log.pipeline, source, columns)
    rows = _Rows(log.pipeline, table.frame, columns)
    try:
        return log.import_history(rows)
    except SchemaError as error:
        raise type(error)(f"{table.place(rows.row)}: {error.what}", hint=error.hint) from error


def conformed(pipeline: Pipeline, source: Path | pl.DataFrame | pd.DataFrame, columns: Columns) -> Table:
    """Read a table of predictions with their labels, with the declared types.

    Raises
    ------
    NotFoundError
        If the file does not exist.
    SchemaError
        If a column is missing, a value is not of the declared type or missing where it may not be, a
        time has no zone, or a label has no time.
    """
    kinds = _kinds(pipeline, columns)
    required = [feature.name for feature in pipeline.features if not feature.nullable]
    outputs = [] if columns.output is None else [columns.output]
    table = read_table(source, [*kinds, *outputs], columns.null)
    frame = table.frame
    for name, kind in kinds.items():
        fitted = fit(frame[name], kind, text=table.is_text)
        if fitted.misfits:
            raise _misfit(table, frame[name], fitted, kind)
        frame = frame.with_columns(fitted.values)
        if kind == "float":
            _check_finite(table, fitted.values)
    _check_there(table, frame, [columns.id, columns.served_at, *outputs, *required])
    _check_times(table, frame, columns)
    return table._replace(frame=frame)


def _kinds(pipeline: Pipeline, columns: Columns) -> dict[str, Kind]:
    """Return the kind of each column; the check of records covers an output by class."""
    roles: list[tuple[str, Kind]] = [
        (columns.id, "id"),
        (columns.served_at, "time"),
        (columns.known_at, "time"),
        (columns.label, _LABELS[pipeline.task]),
    ]
    if columns.output is not None and pipeline.task != "multiclass":
        roles.append((columns.output, "float"))
    kinds: dict[str, Kind] = {}
    for name, kind in (*roles, *((feature.name, feature.dtype) for feature in pipeline.features)):
        if kinds.setdefault(name, kind) != kind:
            raise SchemaError(
                f"column {name!r} would be both {kinds[name]} and {kind}",
                hint="give each a column of its own: --id, --served-at, --label, --known-at",
            )
    return kinds


class _Rows:
    """The rows of a table as records.

    Attributes
    ----------
    row
        The number of the row that was yielded last, or is being made, from 0.
    """

    def __init__(self, pipeline: Pipeline, frame: pl.DataFrame, columns: Columns) -> None:
        self._pipeline = pipeline
        self._frame = frame
        self._columns = columns
        self.row = 0

    def __iter__(self) -> Iterator[tuple[Prediction, Label | None]]:
        """Yield each prediction with its label, if that is known."""
        frame, columns, names = self._frame, self._columns, self._pipeline.feature_names
        features = zip(*(frame[name].to_list() for name in names), strict=True)
        fields = (columns.id, columns.served_at, columns.label, columns.known_at)
        rows = zip(*(frame[name].to_list() for name in fields), strict=True)
        uninformed = _uninformed_output(self._pipeline)
        outputs = frame[columns.output].to_list() if columns.output else [uninformed] * frame.height
        for self.row, (values, row, output) in enumerate(zip(features, rows, outputs, strict=True)):
            id_, served_at, value, known_at = row
            prediction = Prediction(
                id=id_,
                features=dict(zip(names, values, strict=True)),
                output=output,
                served_at=served_at,
                role="imported",
            )
            known = value is not None
            yield prediction, Label(prediction_id=id_, value=value, known_at=known_at) if known else None


def _uninformed_output(pipeline: Pipeline) -> Output:
    """Return the output of a model that has learned nothing."""
    if pipeline.task == "multiclass":
        return {}
    return 0.5 if pipeline.task == "binary" else 0.0


def _misfit(table: Table, column: pl.Series, fitted: Fitted, kind: Kind) -> SchemaError:
    row, other_misfits = fitted.first_misfit, fitted.misfits - 1
    dtype = "" if table.is_text else f" ({column.dtype})"
    value = _text_of(column, row)
    others = f"; so do {other_misfits:,} rows more" if other_misfits else ""
    hint = "convert the column, or declare the feature with the type that it has"
    if table.is_text:
        hint = f"{_WRITE[kind]}; leave the field empty for null, or name the word for it: --null NA"
    elif kind == "time":
        hint = _WRITE[kind]
    return SchemaError(
        f"{table.place(row)}: column {column.name!r}{dtype} holds {value}, which is no "
        f"{_WORDS.get(kind, kind)}{others}",
        hint=hint,
    )


def _text_of(column: pl.Series, row: int) -> str:
    try:
        return repr(column[row])[:60]
    except OverflowError:  # a time beyond Python's
        return "a time out of range"


def _check_finite(table: Table, column: pl.Series) -> None:
    misfits = column.is_finite().not_().fill_null(value=False)
    if misfits.any():
        row = int(misfits.arg_true()[0])
        raise NonFiniteError(
            f"{table.place(row)}: column {column.name!r} holds {column[row]}",
            hint="write null (None) for a value that is not known, and declare the feature nullable",
        )


def _check_there(table: Table, frame: pl.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        missing = frame[name].is_null()
        if missing.any():
            raise SchemaError(
                f"{table.place(int(missing.arg_true()[0]))}: column {name!r} is null"
                f"; {int(missing.sum()):,} rows are",
                hint="fill it, leave the row out, or declare the feature nullable if it is one",
            )


def _check_times(table: Table, frame: pl.DataFrame, columns: Columns) -> None:
    lacking = frame[columns.known_at].is_null() & frame[columns.label].is_not_null()
    if lacking.any():
        row = int(lacking.arg_true()[0])
        raise SchemaError(
            f"{table.place(row)}: label {frame[columns.label][row]!r:.60} has no {columns.known_at!r}"
            f"; {int(lacking.sum()):,} rows lack it",
            hint="write when it became known, or leave the label empty until it is",
        )
