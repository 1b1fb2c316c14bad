"""Read the table of a batch prediction, a few rows at a time, and check each row."""

from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from headwater.features.tables.table_sources import opened, reading
from headwater.features.values.column_values import Kind, fit
from headwater.features.values.misfits import check_column, wrong_names
from headwater.infra.store.storage import Storage
from headwater.spec.errors import SchemaError, few
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.batch import LONGEST_KEY, BatchPrediction

__all__ = ["Chunk", "chunk_of", "read_chunks"]


class Chunk(NamedTuple):
    """Some rows of a table; both fields have the same rows.

    Parameters
    ----------
    keys
        Text, no nulls.
    features
        A column a feature, in the pipeline's order, of its type; nulls only where it is nullable.
    """

    keys: pl.Series
    features: pl.DataFrame


def read_chunks(pipeline: Pipeline, batch: BatchPrediction, storage: Storage) -> Iterator[Chunk]:
    """Read a table a few rows at a time, in its order.

    Parameters
    ----------
    pipeline
        Declares the columns.
    batch
        Names the table, and how many rows to read at a time.
    storage
        Has the address and keys of S3.

    Yields
    ------
    Chunk
        At most ``batch.rows`` rows, and at least one.

    Raises
    ------
    NotFoundError
        If the table does not exist.
    SchemaError, NonFiniteError
        If a column is missing or of another type, or a row does not fit; the error names it.
    StorageError
        If it cannot be read.
    """
    with reading(batch.source):
        for table in opened(batch.source, storage):
            for frame in _cut(_selected(pipeline, batch, table), batch.rows):
                if frame.height:
                    yield chunk_of(pipeline, batch, frame)


def chunk_of(pipeline: Pipeline, batch: BatchPrediction, frame: pl.DataFrame) -> Chunk:
    """Cast rows to their declared types, and check every value. Pure.

    Raises
    ------
    SchemaError
        If a column has another type, a key is no key, a value is missing, or a text holds characters
        that no store takes; the error names it.
    NonFiniteError
        If a number is NaN, infinite or too large to be learned.
    """
    keys = _fitted(frame, batch.key, "id")
    misfits = keys.filter(wrong_names(keys, LONGEST_KEY))
    if len(misfits):
        raise SchemaError(
            f"in column {batch.key!r}, {few((repr(key)[:60] for key in misfits), 3)} are no keys",
            hint=f"give each row a key of 1 to {LONGEST_KEY} characters, none a control character",
        )
    features = pl.DataFrame(
        [
            _fitted(frame, feature.source_column, feature.dtype, keys).alias(feature.name)
            for feature in pipeline.features
        ]
    )
    for feature in pipeline.features:
        column = features[feature.name]
        if not feature.nullable and column.null_count():
            key = keys.filter(column.is_null())[0]
            raise SchemaError(
                f"feature {feature.name!r} of key {key!r} is missing",
                hint="fill it, or declare the feature nullable",
            )
        check_column(column, "in the table", keys)
    return Chunk(keys, features)


def _fitted(frame: pl.DataFrame, name: str, kind: Kind, keys: pl.Series | None = None) -> pl.Series:
    column = frame[name]
    fitted = fit(column, kind)
    if not fitted.misfits:
        return fitted.values
    row = fitted.first_misfit
    whose = "" if keys is None else f" of key {keys[row]!r:.60}"
    expected = "text or a whole number" if kind == "id" else kind
    raise SchemaError(
        f"column {name!r} is {column.dtype}: {str(column[row])[:60]!r}{whose} is not {expected}",
        hint="convert it, or declare the feature with the type it has",
    )


def _selected(pipeline: Pipeline, batch: BatchPrediction, table: pl.LazyFrame) -> pl.LazyFrame:
    columns = list(dict.fromkeys((batch.key, *(feature.source_column for feature in pipeline.features))))
    present = table.collect_schema().names()
    missing = [name for name in columns if name not in present]
    if missing:
        raise SchemaError(
            f"the table has no column {few(missing)}; it has {few(present, 20)}",
            hint="features bear their own names, or those of their column=...; batch.key names the "
            "column that tells entities apart",
        )
    return table.select(columns)


def _cut(table: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
    """Read a table at most `rows` rows at a time; Polars reads only a few pieces ahead."""
    for piece in table.collect_batches(chunk_size=rows, maintain_order=True):
        yield from piece.iter_slices(rows)
