"""Checks of a source's rows, before a table of batch features is published."""

from collections.abc import Iterator, Sequence

import polars as pl
from msgspec import UNSET

from headwater.features.values.column_values import fit
from headwater.features.values.misfits import check_column, wrong_names
from headwater.spec.data.feature import BatchFeature
from headwater.spec.data.feature_table import FeatureTable
from headwater.spec.data.records import FeatureValue
from headwater.spec.data.values import LONGEST_NAME
from headwater.spec.errors import NotEnoughError, SchemaError, few

__all__ = ["Row", "conform", "rows_of"]

Row = tuple[tuple[str, ...], int | None, tuple[FeatureValue, ...]]
"""Key, time in microseconds since 1970 (UTC) or None, values."""


def conform(table: FeatureTable, features: Sequence[BatchFeature], frame: pl.DataFrame) -> pl.DataFrame:
    """Check a source's rows, and give them the declared types.

    Parameters
    ----------
    table, features
        What is declared.
    frame
        As :func:`headwater.features.tables.table_sources.read_whole` gives it.

    Returns
    -------
    polars.DataFrame
        The entity keys as text, ``at`` in microseconds (null if the source does not say), and the
        features; a row a key, by rising key.

    Raises
    ------
    SchemaError
        If a column is missing or of another type, a key or a value is null that may not be, a value is
        outside its range, a text holds what no store does, or a key has several rows.
    NonFiniteError
        If a number is NaN, infinite or beyond what is learned.
    NotEnoughError
        If there are no rows.
    """
    names = [*table.entity, *([table.at] if table.at else []), *(f.source_column for f in features)]
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise SchemaError(
            f"the source of table {table.name!r} has no column {few(missing)}; it has "
            f"{few(frame.columns, 20)}",
            hint="name the source's columns as features and entity keys are named, or declare the "
            "feature's column: column='Spent (EUR)'",
        )
    if frame.is_empty():
        raise NotEnoughError(
            f"the source of table {table.name!r} has no rows",
            hint="look at it; the published table stays",
        )
    keys = [_key(table, frame[name]) for name in table.entity]
    values = [
        _values(table, feature, frame[feature.source_column].alias(feature.name), keys[0])
        for feature in features
    ]
    # By place, since a feature may bear the name of a key.
    columns = [key.alias(f"key{place}") for place, key in enumerate(keys)]
    columns += [_at(table, frame), *(one.alias(f"value{place}") for place, one in enumerate(values))]
    return _one_a_key(table, pl.DataFrame(columns), len(keys))


def rows_of(table: FeatureTable, frame: pl.DataFrame) -> Iterator[Row]:
    """Yield the rows of a frame that :func:`conform` returned."""
    keys = len(table.entity)
    for row in frame.iter_rows():
        yield row[:keys], row[keys], row[keys + 1 :]


def _key(table: FeatureTable, column: pl.Series) -> pl.Series:
    fitted = fit(column, "id")
    if fitted.misfits:
        raise SchemaError(
            f"entity key {column.name!r} of table {table.name!r} is {column.dtype} in its source",
            hint="let it be text, or whole numbers",
        )
    key = fitted.values
    wrong = int(wrong_names(key, LONGEST_NAME).sum())
    if wrong:
        raise SchemaError(
            f"entity key {column.name!r} of table {table.name!r} is null, empty, longer than "
            f"{LONGEST_NAME} characters or holds control characters in {wrong:,} rows of its source",
            hint="leave those rows out: no request can name their keys",
        )
    return key


def _at(table: FeatureTable, frame: pl.DataFrame) -> pl.Series:
    if table.at is None:
        return pl.repeat(None, frame.height, dtype=pl.Int64, eager=True).alias("at")
    column = frame[table.at]
    times = fit(column, "time").values
    if times.has_nulls():
        raise SchemaError(
            f"column {table.at!r} of table {table.name!r} does not hold times with a zone in every row, "
            f"but {column.dtype}",
            hint="write times in UTC, say, and no nulls",
        )
    return times.dt.epoch("us").alias("at")


def _values(table: FeatureTable, feature: BatchFeature, column: pl.Series, keys: pl.Series) -> pl.Series:
    fitted = fit(column, feature.dtype)
    if fitted.misfits:
        raise SchemaError(
            f"feature {feature.name!r} of table {table.name!r} is {column.dtype} in its source, and "
            f"{str(column[fitted.first_misfit])[:60]!r} is not {feature.dtype}",
            hint="convert it there, or declare the feature with the type it has",
        )
    values = fitted.values
    if not feature.nullable and values.has_nulls():
        raise SchemaError(
            f"feature {feature.name!r} is null in {values.null_count():,} rows of the source of table "
            f"{table.name!r}",
            hint="declare it nullable=True, or leave those rows out",
        )
    check_column(values, f"in the source of table {table.name!r}", keys)
    _check_range(table, feature, values)
    return values


def _check_range(table: FeatureTable, feature: BatchFeature, values: pl.Series) -> None:
    outside = pl.repeat(False, len(values), dtype=pl.Boolean, eager=True)
    if feature.low is not UNSET:
        outside |= (values < feature.low).fill_null(False)
    if feature.high is not UNSET:
        outside |= (values > feature.high).fill_null(False)
    if feature.categories is not UNSET:
        outside |= ~values.is_in(list(feature.categories)).fill_null(True)
    if feature.longest is not UNSET:
        outside |= (values.str.len_chars() > feature.longest).fill_null(False)
    if outside.any():
        raise SchemaError(
            f"feature {feature.name!r} is outside what it declares in {int(outside.sum()):,} rows of "
            f"the source of table {table.name!r}: {few(values.filter(outside).unique().sort())}",
            hint="look at the source, or declare another range; the published table stays",
        )


def _one_a_key(table: FeatureTable, frame: pl.DataFrame, keys: int) -> pl.DataFrame:
    names = frame.columns[:keys]
    frame = frame.sort([*names, "at"], nulls_last=False, maintain_order=True)
    repeated = frame.select(names).is_duplicated()
    if not repeated.any():
        return frame
    if table.at is None:
        raise SchemaError(
            f"{int(repeated.sum()):,} rows of the source of table {table.name!r} share a key: "
            f"{few(frame.filter(repeated)['key0'].unique(maintain_order=True).to_list())}",
            hint="give each key one row, or name the column of their times: at='computed_at'",
        )
    return frame.unique(names, keep="last", maintain_order=True)
