"""Whether labels still follow the champion's outputs as they did before.

A metric is a blunt witness of a changed concept: on a window of some thousand rows ROC AUC goes up and
down by as much as somebody should act on. How often labels are positive at each height of the outputs
is a sharper one, and says nothing of the cost. Together they tell what neither does.
"""

import numpy as np
from scipy.special import logit
from scipy.stats import chi2

__all__ = ["concept_changed"]

_BINS = 20
_CHANCE = 0.05


def concept_changed(
    outputs_before: np.ndarray, before: np.ndarray, outputs_now: np.ndarray, now: np.ndarray
) -> bool:
    """Tell whether labels follow outputs in another way than before.

    The shares of positive labels in twenty bins of outputs are compared by a score test of two degrees
    of freedom: they went up or down together, or rise less or more steeply with the outputs (Cox, "Two
    further applications of a model for binary regression", 1958). A change of which rows came does not
    count: each bin is compared with itself.

    Parameters
    ----------
    outputs_before, outputs_now
        The champion's, for either window, shape ``(rows,)``.
    before, now
        The labels, 0 or 1, shape ``(rows,)``.

    Returns
    -------
    bool
        Whether luck would show as much less than once in twenty windows: too often to go by this alone.

    Examples
    --------
    >>> drawn = np.random.default_rng(0)
    >>> said = drawn.random(20_000)
    >>> labels, others = (drawn.random((2, 20_000)) < said).astype(float)
    >>> flipped = np.where(drawn.random(20_000) < 0.1, 1 - others, others)
    >>> concept_changed(said, labels, said, others), concept_changed(said, labels, said, flipped)
    (False, True)
    """
    edges = np.unique(np.quantile(outputs_before, np.linspace(0, 1, _BINS + 1)[1:-1]))
    place_before, place_now = (np.searchsorted(edges, said) for said in (outputs_before, outputs_now))
    size = len(edges) + 1
    rows_before, rows_now = (np.bincount(place, minlength=size) for place in (place_before, place_now))
    up_before = np.bincount(place_before, before, minlength=size)
    up_now = np.bincount(place_now, now, minlength=size)
    both = (rows_before > 0) & (rows_now > 0)
    if both.sum() < 2:
        return False
    n_before, n_now = rows_before[both], rows_now[both]
    weight = n_before * n_now / (n_before + n_now)
    moved = up_now[both] / n_now - up_before[both] / n_before
    share = (up_before[both] + up_now[both] + 0.5) / (n_before + n_now + 1)
    height = logit(share)
    ways = np.stack([np.ones_like(height), height - np.average(height, weights=weight)])
    score = (ways * weight * moved).sum(axis=1)
    spread = (ways * weight * share * (1 - share)) @ ways.T
    statistic = float(score @ np.linalg.pinv(spread) @ score)
    return bool(chi2.sf(statistic, df=2) < _CHANCE)
