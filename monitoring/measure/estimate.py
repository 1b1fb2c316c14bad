"""Estimate a metric before labels come: confidence-based estimation from calibrated scores.

A calibrated score is the probability of a positive label, from which the expected metric follows. The
calibration is learned on predictions whose labels are mature, so it cannot see a concept that has
changed since. An estimate is trusted as far as estimates of earlier windows held (:func:`shrunk`).

References
----------
Białek, Kivimäki, Kuberski and Perrakis, "Estimating Model Performance Under Covariate Shift Without
Labels", arXiv:2401.08348, 2024. NannyML's documentation, "Confidence-based Performance Estimation
(CBPE)". Niculescu-Mizil and Caruana, "Predicting Good Probabilities with Supervised Learning", ICML
2005, for isotonic against Platt's calibration.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np

from headwater.spec.pipeline import Metric

__all__ = ["CALIBRATION_ROWS", "Compared", "Estimator", "expected_auc", "shrunk"]

CALIBRATION_ROWS = 100_000
"""How many of the newest mature predictions calibrate at most."""

_ISOTONIC_LABELS = 1_000
_LEAST_OF_CLASS = 10
_SURE = 1e-3
_FAR = 1e-6
_LEAST = 1e-15
_TRUST = 0.03

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


class Compared(NamedTuple):
    """An earlier window: the estimate by :meth:`Estimator.estimate`, if any, and the measured metric."""

    estimate: float | None
    measured: float


class Estimator:
    """Estimates metrics of a binary task from outputs alone, once fitted.

    It calibrates by isotonic regression from a thousand labels on, and by Platt's logistic curve below.
    If a class has under ten labels, it does not calibrate, and estimates nothing.
    """

    def __init__(self) -> None:
        self._calibrate: Callable[[Floats], Floats] | None = None

    def fit(self, outputs: Floats, labels: Floats) -> Self:
        """Learn how likely a positive label is, given a score.

        Parameters
        ----------
        outputs, labels
            Of served predictions whose labels are mature; labels are 0 or 1, oldest first.
        """
        outputs, truth = outputs[-CALIBRATION_ROWS:], labels[-CALIBRATION_ROWS:]
        positive = int(truth.sum())
        if min(positive, len(truth) - positive) < _LEAST_OF_CLASS:
            self._calibrate = None
        elif len(truth) >= _ISOTONIC_LABELS:
            self._calibrate = _isotonic(outputs, truth)
        else:
            self._calibrate = _platt(outputs, truth)
        return self

    def estimate(self, metric: Metric, outputs: Floats) -> float | None:
        """Return the expected metric of predictions; None if it cannot be estimated.

        Parameters
        ----------
        metric
            ``"roc_auc"``, ``"log_loss"``, ``"accuracy"`` or ``"f1"``; None for others.
        outputs
            Scores of the predictions, whose labels are not looked at.
        """
        if self._calibrate is None or not len(outputs) or metric not in _EXPECTED:
            return None
        return _EXPECTED[metric](self._calibrate(outputs), outputs)


def shrunk(estimate: float, past: Sequence[Compared]) -> float:
    """Shrink an estimate towards the mean of measured values, by how well earlier estimates held.

    An estimate keeps a share of its distance from that mean: the slope of measured on estimated
    distances, learned on the earlier windows by a regression with a prior of 1.

    Parameters
    ----------
    estimate
        Of the window in question.
    past
        Earlier windows, oldest first; only those whose labels were mature when this one ended.

    Examples
    --------
    Estimates that moved by chance keep little:

    >>> chance = [Compared(0.8 + 0.1 * (-1) ** i, 0.8) for i in range(20)]
    >>> round(shrunk(0.9, chance), 3)
    0.814
    """
    if not past:
        return estimate
    history = np.array(past, dtype=np.float64)
    means = np.cumsum(history[:, 1]) / np.arange(1, len(history) + 1)
    moves = history[1:] - means[:-1, None]
    estimated, measured = moves[~np.isnan(moves[:, 0])].T
    slope = (_TRUST + estimated @ measured) / (_TRUST + estimated @ estimated)
    return float(means[-1] + slope * (estimate - means[-1]))


def expected_auc(chances: Floats, outputs: Floats) -> float | None:
    """Return the expected ROC AUC if each label is drawn with its own probability.

    That is the expected number of pairs that are ranked right, a tie counting half, over the expected
    number of pairs of a positive and a negative; a prediction is no pair with itself. Sorting makes
    it O(n log n).

    Parameters
    ----------
    chances
        Of a positive label, a prediction each.
    outputs
        The scores that rank them.

    Examples
    --------
    >>> expected_auc(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.3, 0.4]))
    0.75
    """
    order = np.unique(outputs, return_inverse=True)[1]
    positive, negative = np.bincount(order, chances), np.bincount(order, 1 - chances)
    itself = np.bincount(order, chances * (1 - chances))
    below = np.cumsum(negative) - negative
    pairs = float(chances.sum() * (1 - chances).sum() - itself.sum())
    if pairs <= _LEAST:
        return None
    right = positive @ below + 0.5 * float((positive * negative - itself).sum())
    return float(right / pairs)


def _log_loss(chances: Floats, outputs: Floats) -> float:
    sure = np.clip(outputs, _LEAST, 1 - _LEAST)
    return float(-(chances * np.log(sure) + (1 - chances) * np.log(1 - sure)).mean())


def _accuracy(chances: Floats, outputs: Floats) -> float:
    return float(np.where(outputs >= 0.5, chances, 1 - chances).mean())


def _f1(chances: Floats, outputs: Floats) -> float:
    positive = outputs >= 0.5
    total = float(positive.sum() + chances.sum())
    return 2 * float(chances[positive].sum()) / total if total else 0.0


_EXPECTED: dict[Metric, Callable[[Floats, Floats], float | None]] = {
    "roc_auc": expected_auc,
    "log_loss": _log_loss,
    "accuracy": _accuracy,
    "f1": _f1,
}


def _isotonic(outputs: Floats, truth: Floats) -> Callable[[Floats], Floats]:
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415 - a second to import

    curve = IsotonicRegression(y_min=_SURE, y_max=1 - _SURE, out_of_bounds="clip").fit(outputs, truth)
    return lambda outputs: np.asarray(curve.predict(outputs), dtype=np.float64)


def _platt(outputs: Floats, truth: Floats) -> Callable[[Floats], Floats]:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    curve = LogisticRegression().fit(_logits(outputs), truth)
    return lambda outputs: np.asarray(curve.predict_proba(_logits(outputs))[:, 1], dtype=np.float64)


def _logits(outputs: Floats) -> np.ndarray:
    sure = np.clip(outputs, _FAR, 1 - _FAR)
    return np.log(sure / (1 - sure)).reshape(-1, 1)
