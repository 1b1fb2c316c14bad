"""A row of the table ``performance``, and the rows that a person looks at."""

from datetime import datetime

import msgspec
import polars as pl

__all__ = ["PERFORMANCE_SCHEMA", "PerformanceRow", "newest_rows"]

_TIME = pl.Datetime("us", "UTC")


class PerformanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one version over one stretch of predictions: a row of the table.

    Parameters
    ----------
    pipeline, version, role
        Whose, and in which role it answered.
    window_start, window_stop
        From start up to, but not including, stop; UTC.
    slice, slice_value
        A feature and its value, if only such predictions count; None for all.
    metric, value
        Its name and value; the value is None if labels are not mature or too few.
    error
        Standard error of the value; None if it is not known.
    labelled, predictions
        How many there are.
    mature
        Whether every prediction's wait had passed.
    estimated
        Whether the value was estimated without the window's labels; the row stays when the labels have
        come, to be compared with the measured value.
    cumulative
        Whether it is over all mature windows from `window_start` on, instead of one.
    """

    pipeline: str
    version: str
    role: str
    window_start: datetime
    window_stop: datetime
    slice: str | None = None
    slice_value: str | None = None
    metric: str
    value: float | None
    error: float | None = None
    labelled: int
    predictions: int
    mature: bool
    estimated: bool = False
    cumulative: bool = False


PERFORMANCE_SCHEMA: dict[str, pl.DataType] = {
    "pipeline": pl.String(),
    "version": pl.String(),
    "role": pl.String(),
    "window_start": _TIME,
    "window_stop": _TIME,
    "slice": pl.String(),
    "slice_value": pl.String(),
    "metric": pl.String(),
    "value": pl.Float64(),
    "error": pl.Float64(),
    "labelled": pl.Int64(),
    "predictions": pl.Int64(),
    "mature": pl.Boolean(),
    "estimated": pl.Boolean(),
    "cumulative": pl.Boolean(),
}
"""The columns of the table, in the order of the fields of :class:`PerformanceRow`."""


def newest_rows(frame: pl.DataFrame, last: int, *, of_slices: bool = False) -> pl.DataFrame:
    """Select the rows of the newest windows, and the cumulative rows of the versions in them.

    Parameters
    ----------
    frame
        Rows of :class:`PerformanceRow`.
    last
        How many windows.
    of_slices
        Whether the rows of slices are selected, instead of those over all predictions.
    """
    single = frame.filter(~pl.col("cumulative"))
    starts = single["window_start"].unique().sort().tail(last)
    recent = single.filter(pl.col("window_start").is_in(starts.implode()))
    versions = recent["version"].unique().implode()
    cumulative = frame.filter("cumulative", pl.col("version").is_in(versions))
    return pl.concat([recent, cumulative]).filter(pl.col("slice").is_not_null() == of_slices)
