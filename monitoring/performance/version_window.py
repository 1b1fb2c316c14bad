"""The predictions of one version, in one role, in one window."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import polars as pl

from headwater.features.read.log_reader import LogReader
from headwater.monitoring.measure.windows import WindowSpan
from headwater.monitoring.performance.performance_row import PerformanceRow
from headwater.spec.pipeline import Metric, Pipeline

__all__ = ["VersionWindow", "slice_column", "version_windows"]


class VersionWindow(NamedTuple):
    """The predictions of one version, in one role, in one window.

    Parameters
    ----------
    version, role
        Whose, and in which role it answered.
    span
        The window, or several in one.
    frame
        Columns ``output`` and ``label``, and :func:`slice_column` for each slice; no output is null.
    """

    version: str
    role: str
    span: WindowSpan
    frame: pl.DataFrame

    @property
    def labelled(self) -> pl.DataFrame:
        """The rows that may be judged by their labels: none if the window is not mature."""
        return self.frame.drop_nulls("label") if self.span.mature else self.frame.clear()

    def row(self, pipeline: Pipeline, metric: Metric, value: float | None) -> PerformanceRow:
        """Make a row of the table with a metric's value."""
        return PerformanceRow(
            pipeline=pipeline.name,
            version=self.version,
            role=self.role,
            window_start=self.span.start,
            window_stop=self.span.stop,
            metric=metric,
            value=value,
            labelled=self.frame.height - self.frame["label"].null_count(),
            predictions=self.frame.height,
            mature=self.span.mature,
        )


def slice_column(name: str) -> str:
    """Name the column that holds a feature's value as text.

    >>> slice_column("city")
    'slice city'
    """
    return f"slice {name}"


def version_windows(log: LogReader, span: WindowSpan, slices: Sequence[str]) -> Iterator[VersionWindow]:
    """Read a window, and split it by version and role; imported history is left out.

    Parameters
    ----------
    log
        Has the predictions.
    span
        The window.
    slices
        Features whose values are read as well.
    """
    columns = ("version", "role", "output", *(("features",) if slices else ()))
    frame = log.served(span.first, span.behind, columns, shadows=True, judged=True)
    frame = frame.filter(pl.col("role") != "imported").drop_nulls("output")
    if slices:
        field = pl.col("features").struct.field
        values = [field(name).cast(pl.String).alias(slice_column(name)) for name in slices]
        frame = frame.with_columns(values).drop("features")
    for part in frame.partition_by("version", "role", maintain_order=True):
        yield VersionWindow(part["version"][0], part["role"][0], span, part)
