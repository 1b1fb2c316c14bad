"""Concept drift: a test whether labels still follow the champion's outputs as before.

A metric is a blunt witness of a changed concept: on a window of some thousand rows, luck alone moves ROC
AUC by as much as a harmful change does. The share of positive labels at each height of the outputs is a
sharper witness, and says nothing of the cost. So the two are used together.
"""

import numpy as np
from scipy.special import logit
from scipy.stats import chi2

from headwater.monitoring.measure.block_errors import parts

__all__ = ["concept_changed"]

_BINS = 20
_PARTS = 20  # of each window
_CHANCE = 0.05


def concept_changed(
    reference_outputs: np.ndarray,
    reference_labels: np.ndarray,
    current_outputs: np.ndarray,
    current_labels: np.ndarray,
) -> bool:
    """Tell whether labels follow outputs in another way than before.

    The shares of positive labels in twenty bins of outputs are compared by a score test of two degrees
    of freedom: they went up or down together, or rise less or more steeply with the outputs (Cox, "Two
    further applications of a model for binary regression", 1958). A change of which rows came does not
    count: each bin is compared with itself. Rows that come together are alike, so the statistic is
    divided by their design effect (Kish, "Survey sampling", 1965), as parts of the rows show it.

    Parameters
    ----------
    reference_outputs, current_outputs
        The champion's, for either window, oldest first, shape ``(rows,)``.
    reference_labels, current_labels
        The labels, 0 or 1, shape ``(rows,)``.

    Returns
    -------
    bool
        Whether luck would show as much in less than one of twenty windows, which is too often to act on
        this test alone.

    Examples
    --------
    >>> drawn = np.random.default_rng(0)
    >>> outputs = drawn.random(20_000)
    >>> labels, others = (drawn.random((2, 20_000)) < outputs).astype(float)
    >>> flipped = np.where(drawn.random(20_000) < 0.1, 1 - others, others)
    >>> concept_changed(outputs, labels, outputs, others)
    False
    >>> concept_changed(outputs, labels, outputs, flipped)
    True
    """
    edges = np.unique(np.quantile(reference_outputs, np.linspace(0, 1, _BINS + 1)[1:-1]))
    at_before, at_now = (
        np.searchsorted(edges, outputs) for outputs in (reference_outputs, current_outputs)
    )
    size = len(edges) + 1
    n_before, n_now = (np.bincount(at, minlength=size) for at in (at_before, at_now))
    up_before, up_now = (
        np.bincount(at, up, minlength=size)
        for at, up in ((at_before, reference_labels), (at_now, current_labels))
    )
    compared = (n_before > 0) & (n_now > 0)
    if compared.sum() < 2:
        return False
    weight = n_before * n_now / np.maximum(n_before + n_now, 1)  # 0 where one has no row
    share = (up_before + up_now + 0.5) / (n_before + n_now + 1)
    height = logit(share)
    ways = np.stack([np.ones(size), height - np.average(height, weights=weight)])
    per_row_before = ways * weight / np.maximum(n_before, 1)
    per_row_now = ways * weight / np.maximum(n_now, 1)
    score = per_row_now @ (up_now - n_now * share) - per_row_before @ (up_before - n_before * share)
    by_rows = (ways * weight * share * (1 - share)) @ ways.T
    by_parts = _spread(per_row_now[:, at_now] * (current_labels - share[at_now]))
    by_parts += _spread(per_row_before[:, at_before] * (reference_labels - share[at_before]))
    alike = max(1.0, *(np.diag(by_parts) / np.maximum(np.diag(by_rows), 1e-9)))
    statistic = float(score @ np.linalg.pinv(by_rows) @ score) / alike
    return bool(chi2.sf(statistic, df=2) < _CHANCE)


def _spread(scores: np.ndarray) -> np.ndarray:
    """Return the covariance of sums of scores, shape ``(2, rows)``, by how parts of the rows differ."""
    part = parts(scores.shape[1], _PARTS)
    sums = np.stack([np.bincount(part, row, minlength=_PARTS) for row in scores])
    sums -= sums.mean(axis=1, keepdims=True)
    return np.asarray(sums @ sums.T * _PARTS / (_PARTS - 1))
