"""Read what a batch prediction scores: a few rows at a time, each checked before anything is kept."""

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
    """Some rows of a table, as many in both.

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
        Says what a row holds.
    batch
        Says which table, and how many rows at a time.
    storage
        Knows how S3 is reached.

    Yields
    ------
    Chunk
        At most ``batch.rows`` rows, and at least one.

    Raises
    ------
    NotFoundError
        If the table does not exist.
    SchemaError, NonFiniteError
        If a column is missing or of another type, or a row does not fit; the text names it.
    StorageError
        If it cannot be read.
    """
    with reading(batch.source):
        for table in opened(batch.source, storage):
            for frame in _cut(_wanted(pipeline, batch, table), batch.rows):
                if frame.height:
                    yield chunk_of(pipeline, batch, frame)


def chunk_of(pipeline: Pipeline, batch: BatchPrediction, frame: pl.DataFrame) -> Chunk:
    """Give rows their types, and check every value. Pure.

    Raises
    ------
    SchemaError
        If a column has another type, a key is no key, a value is missing, or a text holds what no
        store does; the text names it.
    NonFiniteError
        If a number is NaN, infinite or beyond what is learned.
    """
    keys = _fitted(frame, batch.key, "id")
    misfits = keys.filter(wrong_names(keys, LONGEST_KEY))
    if len(misfits):
        raise SchemaError(
            f"in column {batch.key!r}, {few((repr(key)[:60] for key in misfits), 3)} are no keys",
            hint=f"give each row a key of 1 to {LONGEST_KEY} characters, none a control character",
        )
    features = pl.DataFrame([_fitted(frame, one.name, one.dtype, keys) for one in pipeline.features])
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
    wanted = "text or a whole number" if kind == "id" else kind
    raise SchemaError(
        f"column {name!r} is {column.dtype}: {str(column[row])[:60]!r}{whose} is not {wanted}",
        hint="convert it, or declare the feature with the type it has",
    )


def _wanted(pipeline: Pipeline, batch: BatchPrediction, table: pl.LazyFrame) -> pl.LazyFrame:
    wanted = list(dict.fromkeys((batch.key, *pipeline.feature_names)))
    there = table.collect_schema().names()
    missing = [name for name in wanted if name not in there]
    if missing:
        raise SchemaError(
            f"the table has no column {few(missing)}; it has {few(there, 20)}",
            hint="features bear their own names; batch.key names the column that tells entities apart",
        )
    return table.select(wanted)


def _cut(table: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
    """Read a table at most so many rows at a time: what is read ahead is a few pieces, not all of it."""
    for piece in table.collect_batches(chunk_size=rows, maintain_order=True):
        yield from piece.iter_slices(rows)
