"""Estimate how a version does in a window before its labels have come."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from headwater.monitoring.measure.estimate import CALIBRATION_ROWS, Compared, Estimator, shrunk
from headwater.monitoring.measure.scores import score
from headwater.monitoring.performance.performance_row import PerformanceRow
from headwater.monitoring.performance.version_window import VersionWindow
from headwater.spec.duration import duration
from headwater.spec.pipeline import Metric, Pipeline

__all__ = ["PerformanceEstimates"]


class _MatureWindow(NamedTuple):
    """A mature window as later estimates use it; the frame of `window` is empty."""

    window: VersionWindow
    outputs: np.ndarray
    labels: np.ndarray
    estimates: dict[Metric, float]
    measured: dict[str, float]


class PerformanceEstimates:
    """Estimates metrics in windows, one after the other, from the mature windows before each.

    :func:`~headwater.monitoring.performance.window_performance.measure_performance` makes one for a
    table, and hands it every window, oldest first. Only binary tasks have estimates.

    Parameters
    ----------
    pipeline
        Has the task, the metrics, the wait, and the least number of labels.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._least = pipeline.monitoring.least
        self._wait = duration(pipeline.label.wait)
        self._mature: list[_MatureWindow] = []

    def add(self, window: VersionWindow) -> Iterator[PerformanceRow]:
        """Yield a row for each metric that can be estimated, then learn from the window if it is mature.

        Parameters
        ----------
        window
            The next window of a version; its labels are not used for its own estimates.
        """
        if self._pipeline.task != "binary":
            return
        estimates = self._calibrated(window)
        earlier = self._usable(window)
        for metric, estimate in estimates.items():
            compared = [
                Compared(mature.estimates.get(metric), mature.measured[metric])
                for mature in earlier
                if metric in mature.measured
            ]
            row = window.row(self._pipeline, metric, shrunk(estimate, compared))
            yield msgspec.structs.replace(row, estimated=True)
        if window.span.mature:
            self._learn(window, estimates)

    def _usable(self, window: VersionWindow) -> list[_MatureWindow]:
        """Select the windows that were mature when this one ended: the version's own, if they suffice.

        Otherwise those of every version that had its role.
        """
        of_role = [
            mature
            for mature in self._mature
            if mature.window.role == window.role
            and mature.window.span.stop + self._wait <= window.span.stop
        ]
        own = [mature for mature in of_role if mature.window.version == window.version]
        return own if _labels_in(own) >= self._least else of_role

    def _calibrated(self, window: VersionWindow) -> dict[Metric, float]:
        """Estimate each metric from outputs alone, calibrated on the newest labels before the window."""
        if window.frame.height < self._least:
            return {}
        earlier = self._usable(window)
        if _labels_in(earlier) < self._least:
            return {}
        newest = _newest(earlier)
        estimator = Estimator().fit(
            np.concatenate([mature.outputs for mature in newest]),
            np.concatenate([mature.labels for mature in newest]),
        )
        outputs = window.frame["output"].to_numpy().astype(np.float64)
        values = {metric: estimator.estimate(metric, outputs) for metric in self._pipeline.judged_by}
        return {metric: value for metric, value in values.items() if value is not None}

    def _learn(self, window: VersionWindow, estimates: dict[Metric, float]) -> None:
        rows = window.labelled
        outputs, labels = (rows[name].to_numpy().astype(np.float64) for name in ("output", "label"))
        measured: dict[str, float] = {}
        if rows.height >= self._least:
            measured = score("binary", self._pipeline.judged_by, rows["output"], rows["label"])
        emptied = window._replace(frame=window.frame.clear())
        self._mature.append(_MatureWindow(emptied, outputs, labels, estimates, measured))


def _labels_in(windows: Sequence[_MatureWindow]) -> int:
    return sum(len(mature.labels) for mature in windows)


def _newest(windows: Sequence[_MatureWindow]) -> list[_MatureWindow]:
    """Leave out the oldest windows, which calibration would not look at."""
    rows, newest = 0, []
    for mature in reversed(windows):
        if rows >= CALIBRATION_ROWS:
            break
        newest.append(mature)
        rows += len(mature.labels)
    return newest[::-1]
