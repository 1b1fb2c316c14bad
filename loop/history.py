"""Import what happened before headwater: a table of predictions with their labels."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pandas as pd
import polars as pl

from headwater.features.frames import feature_schema, label_dtype
from headwater.features.log import FeatureLog
from headwater.spec.errors import NotFoundError, SchemaError, few
from headwater.spec.pipeline import Pipeline
from headwater.spec.records import Label, Output, Prediction

__all__ = ["Columns", "history", "import_history"]

_TIME = pl.Datetime("us", "UTC")


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Which column of a table is what; features bear their own names.

    Parameters
    ----------
    id, served_at, label, known_at
        The prediction's id and time, its label, and when that became known.
    output
        What was predicted; None where nothing was, and the output is then 0.5, 0 or no class.
    """

    id: str = "id"
    served_at: str = "served_at"
    label: str = "label"
    known_at: str = "known_at"
    output: str | None = None


def import_history(
    log: FeatureLog, source: Path | pl.DataFrame | pd.DataFrame, columns: Columns | None = None
) -> int:
    """Log a table of past predictions and labels, each as received at its own time.

    Parameters
    ----------
    log
        Where to.
    source
        A Parquet or CSV file, or a Polars or pandas dataframe; a row a prediction.
    columns
        Which column is what.

    Returns
    -------
    int
        How many records were new.

    Raises
    ------
    NotFoundError
        If the file does not exist.
    SchemaError, ConflictError, StorageError
        If a row does not fit; nothing is kept then.
    """
    return log.import_history(history(log.pipeline, _read(source), columns or Columns()))


def history(
    pipeline: Pipeline, frame: pl.DataFrame, columns: Columns
) -> Iterator[tuple[Prediction, Label | None]]:
    """Give a table's rows as records.

    Raises
    ------
    SchemaError
        If a column is missing or of another type, or a time has no zone.
    """
    frame = _conform(pipeline, frame, columns)
    names = pipeline.feature_names
    features = zip(*(frame[name].to_list() for name in names), strict=True)
    fields = (columns.id, columns.served_at, columns.label, columns.known_at)
    rows = zip(*(frame[name].to_list() for name in fields), strict=True)
    outputs = frame[columns.output].to_list() if columns.output else [_nothing(pipeline)] * frame.height
    for values, (id_, served_at, value, known_at), output in zip(features, rows, outputs, strict=True):
        prediction = Prediction(
            id=id_,
            features=dict(zip(names, values, strict=True)),
            output=output,
            served_at=served_at,
            role="imported",
        )
        known = value is not None and known_at is not None
        yield prediction, Label(prediction_id=id_, value=value, known_at=known_at) if known else None


def _nothing(pipeline: Pipeline) -> Output:
    """Give the output of a model that knows nothing."""
    if pipeline.task == "multiclass":
        return {}
    return 0.5 if pipeline.task == "binary" else 0.0


def _read(source: Path | pl.DataFrame | pd.DataFrame) -> pl.DataFrame:
    if isinstance(source, pl.DataFrame):
        return source
    if not isinstance(source, Path):
        return pl.from_pandas(source)
    if not source.is_file():
        raise NotFoundError(f"no file {str(source)!r}", hint="give a .parquet or .csv file")
    try:
        if source.suffix == ".csv":
            return pl.read_csv(source, infer_schema_length=10_000, null_values=["", "NA"])
        return pl.read_parquet(source)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SchemaError(
            f"{source} cannot be read: {str(error).splitlines()[0][:200]}",
            hint="give Parquet, or CSV with a line of names",
        ) from error


def _conform(pipeline: Pipeline, frame: pl.DataFrame, columns: Columns) -> pl.DataFrame:
    """Give the columns their types, or say which one does not fit."""
    wanted = feature_schema(pipeline.features) | {
        columns.id: pl.String,
        columns.label: label_dtype(pipeline.task),
    }
    times = (columns.served_at, columns.known_at)
    missing = [name for name in (*wanted, *times) if name not in frame.columns]
    if missing:
        raise SchemaError(
            f"the table has no column {few(missing)}; it has {few(frame.columns, 20)}",
            hint="name the columns with --id, --served-at, --label and --known-at",
        )
    for name in times:
        frame = frame.with_columns(_moment(frame[name]))
    for name, dtype in wanted.items():
        try:
            frame = frame.with_columns(_cast(frame[name], dtype))
        except pl.exceptions.PolarsError as error:
            raise SchemaError(
                f"column {name!r} is {frame[name].dtype}, not {dtype}: "
                f"{str(error).splitlines()[0][:150]}",
                hint="convert it, or declare the feature with the type it has",
            ) from error
    return frame


def _cast(series: pl.Series, dtype: type[pl.DataType]) -> pl.Series:
    if dtype == pl.Boolean and series.dtype == pl.String:
        lowered = series.str.to_lowercase()
        return lowered.replace_strict(
            {"true": True, "false": False, "1": True, "0": False}, return_dtype=pl.Boolean
        ).alias(series.name)
    return series.cast(dtype)


def _moment(series: pl.Series) -> pl.Series:
    if series.dtype == pl.String:
        try:
            series = series.str.to_datetime("%+", time_unit="us", time_zone="UTC").alias(series.name)
        except pl.exceptions.PolarsError as error:
            raise _no_zone(series) from error
    if not isinstance(series.dtype, pl.Datetime) or series.dtype.time_zone is None:
        raise _no_zone(series)
    return series.dt.convert_time_zone("UTC").cast(_TIME)


def _no_zone(series: pl.Series) -> SchemaError:
    first = series.drop_nulls().head(1).to_list()
    return SchemaError(
        f"column {series.name!r} does not hold times with a zone, but {series.dtype}: {few(first)}",
        hint="write times as 2013-01-01T05:15:00Z",
    )
