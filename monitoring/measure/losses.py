"""The cost of a change: the loss of a metric, turned so that more is worse, and its error.

Errors are a jackknife's, over twenty parts of the rows, each of rows that came together. The metric
takes weights, so that a reference can be weighted into what came later
(:mod:`headwater.monitoring.attention.attribution`).
"""

import math
from typing import NamedTuple

import numpy as np
import polars as pl

from headwater.monitoring.measure.block_errors import parts
from headwater.spec.pipeline import Metric

__all__ = ["GROUPS", "Badness", "Loss", "Side", "badness", "jackknifed", "loss", "unit"]

GROUPS = 20
"""Parts of the jackknife."""

_TOGETHER = (1, 2, 4)  # how long rows stay alike is not known


class Loss(NamedTuple):
    """Loss of the metric, above 0 is worse, and its standard error; both in units of :func:`unit`."""

    value: float
    error: float


class Badness(NamedTuple):
    """A metric, turned so that more is worse.

    Parameters
    ----------
    value
        On all rows, in the metric's own unit.
    parts
        Without each of twenty parts of the rows, shape ``(20,)``.
    """

    value: float
    parts: np.ndarray

    @property
    def error(self) -> float:
        """The jackknife's standard error: the greatest over one, two and four parts left out at once.

        Two parts that are left out together change the metric by about the sum of their own changes.
        """
        deviations = self.parts - self.parts.mean()
        spreads = []
        for together in _TOGETHER:
            blocks = GROUPS // together
            sums = deviations.reshape(blocks, together).sum(axis=1)
            spreads.append(float((sums**2).sum()) * blocks / (blocks - 1))
        return (GROUPS - 1) / GROUPS * math.sqrt(max(spreads))


class Side(NamedTuple):
    """A labelled sample with the champion's outputs.

    Parameters
    ----------
    frame
        A column for each feature.
    outputs
        The champion's: shape ``(rows,)``, or ``(rows, classes)``.
    labels
        Numbers, chances of a positive label, or places of classes, shape ``(rows,)``.
    badness
        Of these outputs for these labels.
    """

    frame: pl.DataFrame
    outputs: np.ndarray
    labels: np.ndarray
    badness: Badness


def badness(
    metric: Metric, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray
) -> float | None:
    """Compute a metric with weights, turned so that more is worse; None if it is undefined.

    Parameters
    ----------
    metric
        Of classes, accuracy stands in for what has no loss by rows.
    labels, outputs
        As in :class:`Side`.
    weights
        Of the rows, shape ``(rows,)``, 0 or more.

    Examples
    --------
    >>> labels, outputs = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.3, 0.4])
    >>> badness("roc_auc", labels, outputs, np.ones(4))
    -0.75
    >>> badness("accuracy", labels, outputs, np.array([1.0, 1.0, 0.0, 2.0]))
    0.75
    """
    if outputs.ndim == 2:
        return _class_badness(metric, labels, outputs, weights)
    total = float(weights.sum())
    if total <= 0:
        return None
    if metric == "roc_auc":
        return _auc_badness(labels, outputs, weights)
    if metric == "f1":
        return _f1_badness(labels, outputs, weights)
    mean = float((weights * _row_losses(metric, labels, outputs)).sum()) / total
    return math.sqrt(mean) if metric == "rmse" else mean


def jackknifed(
    metric: Metric, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray | None = None
) -> Badness | None:
    """Compute a metric on all rows and without each part; None if any of these is undefined.

    Parameters
    ----------
    metric, labels, outputs, weights
        As for :func:`badness`; without weights all rows weigh the same.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    part = parts(len(labels), GROUPS)
    if outputs.ndim == 1:  # sorted once, not for each part
        order = np.argsort(outputs, kind="stable")
        labels, outputs, weights, part = labels[order], outputs[order], weights[order], part[order]
    subsets = [part >= 0, *(part != left_out for left_out in range(GROUPS))]
    values = [badness(metric, labels[rows], outputs[rows], weights[rows]) for rows in subsets]
    defined = [value for value in values if value is not None]
    return Badness(defined[0], np.array(defined[1:])) if len(defined) == len(values) else None


def loss(metric: Metric, side: Side, outputs: np.ndarray, weights: np.ndarray | None = None) -> Loss:
    """Compare labelled rows with the same rows under other outputs or another weighting.

    Parameters
    ----------
    metric
        The pipeline's first one.
    side
        The rows, as they are.
    outputs, weights
        What they would be, in the shapes of :func:`badness`.

    Returns
    -------
    Loss
        Of 0 with an infinite error if the metric would be undefined.
    """
    counterfactual = jackknifed(metric, side.labels, outputs, weights)
    if counterfactual is None:
        return Loss(0.0, math.inf)
    scale = unit(metric, side.labels)
    lost = Badness(counterfactual.value - side.badness.value, counterfactual.parts - side.badness.parts)
    return Loss(lost.value / scale, lost.error / scale)


def unit(metric: Metric, labels: np.ndarray) -> float:
    """Return the unit of a loss: errors of regression count in standard deviations of the label."""
    return max(float(labels.std()), 1e-12) if metric in ("mae", "rmse") else 1.0


def _auc_badness(labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> float | None:
    order = np.argsort(outputs, kind="stable")
    ranked, positive = outputs[order], weights[order] * labels[order]
    negative = weights[order] - positive
    if positive.sum() <= 0 or negative.sum() <= 0:
        return None
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    ups, downs = np.add.reduceat(positive, starts), np.add.reduceat(negative, starts)
    below = np.cumsum(downs) - downs / 2
    return -float((ups * below).sum() / (positive.sum() * negative.sum()))


def _f1_badness(labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> float | None:
    positive = outputs >= 0.5
    hit, predicted, true = (
        float((weights * part).sum()) for part in (positive * labels, positive, labels)
    )
    return None if predicted + true == 0 else -2 * hit / (predicted + true)


def _row_losses(metric: Metric, labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    if metric == "log_loss":
        chances = np.clip(outputs, 1e-15, 1 - 1e-15)
        losses: np.ndarray = -labels * np.log(chances) - (1 - labels) * np.log(1 - chances)
        return losses
    if metric == "accuracy":
        return np.where(outputs >= 0.5, 1 - labels, labels)
    errors: np.ndarray = np.abs(labels - outputs)
    return np.square(errors) if metric == "rmse" else errors


def _class_badness(
    metric: Metric, labels: np.ndarray, shares: np.ndarray, weights: np.ndarray
) -> float | None:
    if not shares.shape[1] or weights.sum() <= 0:
        return None
    truth = labels.astype(int)
    chances = np.where(truth >= 0, shares[np.arange(len(truth)), np.maximum(truth, 0)], 0.0)
    losses = -np.log(np.clip(chances, 1e-15, 1.0)) if metric == "log_loss" else shares.argmax(1) != truth
    return float((weights * losses).sum() / weights.sum())
