"""How well the champion does: scores of its windows against what it learned last, and estimates."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from headwater.monitoring.measure.estimate import Compared, Estimator, shrunk
from headwater.monitoring.measure.scores import block_error, score
from headwater.monitoring.performance.champion_windows import ChampionWindows
from headwater.monitoring.performance.error_rise import errors_rose
from headwater.spec.pipeline import Metric, Pipeline
from headwater.spec.updating.evidence import LOWER_IS_BETTER, Score

__all__ = ["champion_scores", "errors_changed", "fell", "regret"]

_COMPARED = 8


def champion_scores(
    pipeline: Pipeline, served: pl.DataFrame, windows: ChampionWindows
) -> tuple[Score, ...]:
    """Score the champion by each metric: on what it learned last, and on its windows.

    Parameters
    ----------
    pipeline
        Names the metrics, the first of which decides.
    served
        The rows that the champion learned last and that a version served.
    windows
        Its windows.

    Returns
    -------
    tuple of Score
        One a metric; measured on mature windows, with an estimate of the newest if its labels are out.
    """
    least, task, metrics = pipeline.monitoring.least, pipeline.task, pipeline.judged_by
    labelled = [frame for window in windows.mature if (frame := window.labelled).height >= least]
    measured = [score(task, metrics, frame["output"], frame["label"]) for frame in labelled]
    reference = score(task, metrics, served["output"], served["label"]) if served.height >= least else {}
    estimates: dict[Metric, float] = {}
    newest = windows.newest
    if task == "binary" and newest is not None and not newest.span.mature:
        estimates = _estimates(metrics, served, labelled, measured, newest.frame)
    return tuple(
        Score(
            metric=metric,
            reference=reference.get(metric),
            current=measured[-1].get(metric) if measured else None,
            estimate=estimates.get(metric),
            past=tuple(values[metric] for values in measured[:-1] if metric in values),
            error=block_error(task, metric, labelled[-1]["output"], labelled[-1]["label"])
            if labelled
            else None,
        )
        for metric in metrics
    )


def _estimates(
    metrics: Sequence[Metric],
    served: pl.DataFrame,
    labelled: Sequence[pl.DataFrame],
    measured: Sequence[dict[str, float]],
    newest: pl.DataFrame,
) -> dict[Metric, float]:
    """Estimate the newest window, as far as estimates of the windows before have held."""
    compared: dict[Metric, list[Compared]] = {metric: [] for metric in metrics}
    first = max(len(labelled) - _COMPARED, 0)
    for i in range(first, len(labelled)):
        estimator = _estimator([served, *labelled[:i]])
        for metric in metrics:
            if metric in measured[i]:
                estimate = _estimate(estimator, metric, labelled[i])
                compared[metric].append(Compared(estimate, measured[i][metric]))
    estimator = _estimator([served, *labelled])
    raw = {metric: _estimate(estimator, metric, newest) for metric in metrics}
    return {
        metric: shrunk(value, compared[metric]) for metric, value in raw.items() if value is not None
    }


def _estimator(frames: Sequence[pl.DataFrame]) -> Estimator:
    columns = ("output", "label")
    labelled = pl.concat([frame.select(columns) for frame in frames]).drop_nulls()
    outputs, labels = (labelled[name].cast(pl.Float64).to_numpy() for name in columns)
    return Estimator().fit(outputs, labels)


def _estimate(estimator: Estimator, metric: Metric, frame: pl.DataFrame) -> float | None:
    outputs = frame["output"].drop_nulls().to_numpy()
    return estimator.estimate(metric, outputs.astype(np.float64)) if len(outputs) else None


def errors_changed(pipeline: Pipeline, windows: ChampionWindows) -> bool:
    """Tell whether the errors of the mature windows rose at some point."""
    if not windows.mature or windows.mature[-1].labelled.is_empty():
        return False
    labelled = pl.concat([window.labelled.select("output", "label") for window in windows.mature])
    return errors_rose(labelled["output"], labelled["label"], pipeline.task)


def fell(scores: Sequence[Score]) -> bool:
    """Tell whether the first score is worse than its reference by more than twice its error."""
    first = scores[0] if scores else None
    if first is None or first.reference is None or first.current is None or first.error is None:
        return False
    return _loss(first.metric, first.current, first.reference) > 2 * first.error


def regret(scores: Sequence[Score], windows: ChampionWindows) -> float:
    """Return the loss against the reference over the mature windows, each prediction counted."""
    first = scores[0] if scores else None
    if first is None or first.reference is None or first.current is None:
        return 0.0
    values = [*first.past, first.current]
    counts = [window.window.predictions for window in windows.mature][-len(values) :]
    losses = [_loss(first.metric, value, first.reference) for value in values]
    return max(0.0, sum(loss * count for loss, count in zip(losses, counts, strict=False)))


def _loss(metric: str, value: float, reference: float) -> float:
    return value - reference if metric in LOWER_IS_BETTER else reference - value
