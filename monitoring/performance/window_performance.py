"""Measure how every version does: by window, over all mature windows, and by slice.

The newest labels count: a revised label corrects the window that it belongs to, and a label that came
after the wait changes nothing. A window that is not mature has no measured value.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec
import polars as pl
from msgspec.structs import astuple

from headwater.features.read.log_reader import LogReader
from headwater.monitoring.measure.scores import score, score_error
from headwater.monitoring.measure.windows import WindowSpan, windows
from headwater.monitoring.performance.estimated_performance import PerformanceEstimates
from headwater.monitoring.performance.performance_row import PERFORMANCE_SCHEMA, PerformanceRow
from headwater.monitoring.performance.version_window import VersionWindow, slice_column, version_windows
from headwater.spec.duration import duration
from headwater.spec.pipeline import Pipeline

__all__ = ["measure_performance", "newest_windows", "performance_of"]

_SLICE_VALUES = 20
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def measure_performance(log: LogReader, pipeline: Pipeline, spans: Sequence[WindowSpan]) -> pl.DataFrame:
    """Measure every version, live and shadow, in windows; imported history is left out.

    Parameters
    ----------
    log
        Read window by window.
    pipeline
        Has the task, the metrics, the wait, the slices, and the least number of labels.
    spans
        The windows, oldest first. A cumulative value is over those of them that are mature. An estimate
        learns from those that were mature when its window ended.

    Returns
    -------
    polars.DataFrame
        Rows of :class:`~headwater.monitoring.performance.performance_row.PerformanceRow`. Of a slice's
        values the twenty most frequent ones have rows.
    """
    rows: list[PerformanceRow] = []
    mature: list[VersionWindow] = []
    estimates = PerformanceEstimates(pipeline)
    for span in spans:
        for window in version_windows(log, span, pipeline.monitoring.slices):
            rows += _measured(pipeline, window)
            rows += estimates.add(window)
            if span.mature:
                mature.append(window._replace(frame=window.frame.select("output", "label")))
    rows += _cumulative(pipeline, mature)
    return pl.DataFrame([astuple(row) for row in rows], schema=PERFORMANCE_SCHEMA, orient="row")


def performance_of(log: LogReader, pipeline: Pipeline, now: datetime, *, last: int) -> pl.DataFrame:
    """Measure a pipeline's newest windows, as :func:`measure_performance` does.

    Parameters
    ----------
    log, pipeline
        Whose.
    now
        The present.
    last
        How many windows at most, whichever version began when.
    """
    return measure_performance(log, pipeline, newest_windows(log, pipeline, now, last=last))


def newest_windows(log: LogReader, pipeline: Pipeline, now: datetime, *, last: int) -> list[WindowSpan]:
    """List a pipeline's newest windows, oldest first; parameters as for :func:`performance_of`."""
    rule, wait = pipeline.monitoring, duration(pipeline.label.wait)
    return windows(log, rule, _BEGINNING, now, wait, last=last)


def _measured(pipeline: Pipeline, window: VersionWindow) -> Iterator[PerformanceRow]:
    yield from _rows(pipeline, window)
    for name in pipeline.monitoring.slices:
        column = slice_column(name)
        common = window.frame[column].drop_nulls().value_counts(sort=True).head(_SLICE_VALUES)
        for value in sorted(common[column].to_list()):
            sliced = window._replace(frame=window.frame.filter(pl.col(column) == value))
            yield from _rows(pipeline, sliced, name, value)


def _rows(
    pipeline: Pipeline, window: VersionWindow, name: str | None = None, value: str | None = None
) -> Iterator[PerformanceRow]:
    """Yield a row for each metric, without a value if labels are not mature or too few."""
    labelled = window.labelled
    scores: dict[str, float] = {}
    if labelled.height >= pipeline.monitoring.least:
        scores = score(pipeline.task, pipeline.judged_by, labelled["output"], labelled["label"])
    for metric in pipeline.judged_by:
        error = None
        if metric in scores:
            error = score_error(pipeline.task, metric, labelled["output"], labelled["label"])
        row = window.row(pipeline, metric, scores.get(metric))
        yield msgspec.structs.replace(row, error=error, slice=name, slice_value=value)


def _cumulative(pipeline: Pipeline, mature: Iterable[VersionWindow]) -> Iterator[PerformanceRow]:
    by_version: dict[tuple[str, str], list[VersionWindow]] = {}
    for window in mature:
        by_version.setdefault((window.version, window.role), []).append(window)
    for (version, role), own in by_version.items():
        first, last = own[0].span, own[-1].span
        span = WindowSpan(first.start, last.stop, first.first, last.behind, True)
        whole = VersionWindow(version, role, span, pl.concat([window.frame for window in own]))
        for row in _rows(pipeline, whole):
            yield msgspec.structs.replace(row, cumulative=True)
