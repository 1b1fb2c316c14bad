"""How columns depend on each other: how well others predict a column, and whether they moved with it.

It is linear algebra on normal scores (a Gaussian copula) of at most a few thousand rows, since every
window takes it. Relations are learned on one half of the reference and judged on the other. The halves
take turns in time, since rows of one day would flatter a relation that was learned on that day.

If the world moved along a column, the other columns move with it by a predictable amount. If the column
moved alone, they do not (an "intervention" on one variable: Peters, Janzing and Schölkopf, "Elements of
causal inference", 2017, chapter 6). :meth:`Relations.slope` measures that amount.
:meth:`Relations.predictability` measures how well the others still predict the column's rank.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from headwater.monitoring.measure.block_errors import move_errors, parts
from headwater.monitoring.measure.columns import is_number, numbers, probit, texts
from headwater.spec.data.feature import FeatureKind

__all__ = ["Predictability", "Relations", "Slope", "relate"]

_TURNS = 10  # times that rows are learned from, and that they judge, in turn: not of the same day
_MOST_WINDOWS = 8  # of the reference, in which relations are looked at

_Codes = list[tuple[np.ndarray, ...]]  # of a column, each for reference and current window


class Predictability(NamedTuple):
    """How well other columns predict a column.

    Parameters
    ----------
    reference, current
        The correlation in either window.
    lost
        Correlation that the current window lacks.
    lost_in_reference
        The most that a window of the reference lacks.
    """

    reference: float
    current: float
    lost: float
    lost_in_reference: float


class Slope(NamedTuple):
    """The move of the other columns as a share of the move that the world's would cause, and its error.

    It is about 1 if the world moved, and about 0 if the column moved alone. The standard error is
    infinite if no other column depends on it.
    """

    value: float
    error: float


class Relations(NamedTuple):
    """Codes of each column, and how well the others predict them.

    Parameters
    ----------
    blocks
        The codes' positions by column.
    inverse
        Inverse of the codes' ridged second moments in one half of the reference, ``(codes, codes)``.
    half
        Rows of the reference that made it; the others judge.
    held_out_covariance, window_covariances, current_covariance
        Covariance of the codes in the other half of the reference, in windows of it, ``(windows, codes,
        codes)``, and in the current window.
    reference, current
        Codes in standard deviations of the reference, ``(rows, codes)``, oldest first.
    windows
        How many windows as long as the current one the reference has.
    """

    blocks: dict[str, list[int]]
    inverse: np.ndarray
    half: np.ndarray
    held_out_covariance: np.ndarray
    window_covariances: np.ndarray
    current_covariance: np.ndarray
    reference: np.ndarray
    current: np.ndarray
    windows: int

    def predictability(self, name: str, without: Sequence[str] = ()) -> Predictability:
        """Compare how well the other columns predict a column's codes in both windows.

        Parameters
        ----------
        name
            The column.
        without
            Other columns that are suspected, and left out.
        """
        return self.predictabilities([name], without)[name]

    def predictabilities(
        self, names: Sequence[str], without: Sequence[str] = ()
    ) -> dict[str, Predictability]:
        """Do as :meth:`predictability` for each of several columns, all at once, which costs much less.

        Parameters
        ----------
        names
            The columns.
        without
            Other columns that are suspected, and left out.
        """
        if not names:
            return {}
        owns = [self.blocks[name] for name in names]
        weights = np.hstack(
            [self._own_from_others(name, own, without) for name, own in zip(names, owns, strict=True)]
        )
        codes = [code for own in owns for code in own]
        before, _ = _agreement(self.held_out_covariance, weights, codes)
        now, slopes = _agreement(self.current_covariance, weights, codes)
        lost = _lost(before, now, slopes)
        lost_in_reference = np.zeros(len(codes))
        for part in self.window_covariances:
            lost_in_reference = np.maximum(
                lost_in_reference, _lost(before, *_agreement(part, weights, codes))
            )
        results: dict[str, Predictability] = {}
        start = 0
        for name, own in zip(names, owns, strict=True):
            best = start + int(np.argmax(np.abs(before[start : start + len(own)])))
            results[name] = Predictability(
                *(float(of[best]) for of in (before, now, lost, lost_in_reference))
            )
            start += len(own)
        return results

    def _own_from_others(self, name: str, own: Sequence[int], without: Sequence[str]) -> np.ndarray:
        others = [code for other in without if other != name for code in self.blocks[other]]
        return self._from_others([*own, *others])[:, : len(own)]

    def slope(self, name: str, ratios: np.ndarray, without: Sequence[str] = ()) -> Slope:
        """Measure how far the other columns moved, as a share of the move that the world's would cause.

        The direction is the prediction of the column's density ratio by the others, learned on one half
        of the reference and judged on the other.

        Parameters
        ----------
        name
            The column that moved.
        ratios
            Density of its value in the current window over that in the reference, for each row of the
            reference.
        without
            Other columns that are suspected, and left out.
        """
        block = [code for other in {name, *without} for code in self.blocks[other]]
        inverse, half, codes = self.inverse, self.half, self.reference
        moments = codes[half].T @ (ratios[half] - ratios[half].mean())
        moments[block] = 0.0
        weights = inverse @ moments + self._from_others(block) @ (inverse[block] @ moments)
        weights[block] = 0.0
        before, now = codes[~half] @ weights, self.current @ weights
        expected = float(((ratios[~half] - ratios[~half].mean()) * (before - before.mean())).mean())
        move = float(now.mean() - before.mean())
        luck = math.sqrt(before.var() / max(len(before), 1) + now.var() / max(len(now), 1))
        if expected <= 3 * luck:
            return Slope(0.0, math.inf)
        (error,) = move_errors(before[:, None], now[:, None], self.windows)
        return Slope(move / expected, float(error) / expected)

    def _from_others(self, block: Sequence[int]) -> np.ndarray:
        """Return the weights that predict these codes from all other codes."""
        weights = -self.inverse[:, block] @ np.linalg.inv(self.inverse[np.ix_(block, block)])
        weights[block] = 0.0
        return np.asarray(weights)


def relate(
    features: Sequence[FeatureKind],
    reference: pl.DataFrame,
    current: pl.DataFrame,
    labelled: pl.DataFrame,
    outputs: np.ndarray,
    windows: int,
) -> Relations:
    """Learn how columns depend on each other.

    Parameters
    ----------
    features
        What the columns are.
    reference, current
        Two windows, with a column for each feature.
    labelled
        Rows of the reference that have outputs; may be the same frame.
    outputs
        The champion's outputs for them, one number a row.
    windows
        How many windows as long as the current one the reference has.
    """
    frames = [reference, current, *([] if labelled is reference else [labelled])]
    place = 0 if labelled is reference else 2
    numeric = [k.name for k in features if is_number(k, reference[k.name], current[k.name])]
    scores = {name: _normal_scores(reference[name], [f[name] for f in frames]) for name in numeric}
    guides = np.column_stack([outputs, *(scores[name][place] for name in numeric)])
    columns: _Codes = []
    blocks: dict[str, list[int]] = {}
    for kind in features:
        pair = (reference[kind.name], current[kind.name])
        if kind.name in scores:
            codes = _number_codes(scores[kind.name][:2], pair)
        else:
            codes = _category_codes(labelled[kind.name], guides, pair)
        blocks[kind.name] = list(range(len(columns), len(columns) + len(codes)))
        columns += codes
    before, now = (np.column_stack([c[i] for c in columns]) for i in range(2))
    middle, spread = before.mean(0), np.maximum(before.std(0), 0.05)
    before, now = (before - middle) / spread, (now - middle) / spread
    half = parts(len(before), _TURNS) % 2 == 0
    moments = before[half].T @ before[half] + 20.0 * np.eye(len(columns))
    inverse = np.linalg.inv(moments)
    return Relations(
        blocks=blocks,
        inverse=inverse,
        half=half,
        held_out_covariance=_covariance(before[~half]),
        window_covariances=np.array([_covariance(part) for part in _windows(before[~half], windows)]),
        current_covariance=_covariance(now),
        reference=before,
        current=now,
        windows=windows,
    )


def _windows(codes: np.ndarray, windows: int) -> list[np.ndarray]:
    windows = min(windows, _MOST_WINDOWS)
    return np.array_split(codes, windows) if windows > 1 else []


def _lost(before: np.ndarray, now: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return the correlation that is lost, by the slope too: a selection of rows leaves that at 1."""
    size = np.abs(before)
    share_lost = 1 - np.copysign(1.0, before) * now / np.maximum(size, 1e-9)
    return np.asarray(size * np.minimum(share_lost, 1 - slope))


def _covariance(codes: np.ndarray) -> np.ndarray:
    centred = codes - codes.mean(0)
    return np.asarray(centred.T @ centred / max(len(codes), 1))


def _agreement(
    moments: np.ndarray, weights: np.ndarray, own: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return correlation and slope of codes on their predictions, by the covariance of the codes."""
    along = moments @ weights
    predicted = np.sqrt(np.maximum((weights * along).sum(0), 0.0))
    spread = np.sqrt(np.diag(moments)[own])
    covariances = along[own, np.arange(len(own))]
    defined = predicted * spread > 1e-9
    correlation = np.where(defined, covariances / np.where(defined, predicted * spread, 1.0), 0.0)
    moves = predicted > 1e-9
    return correlation, np.where(moves, correlation * spread / np.where(moves, predicted, 1.0), 1.0)


def _normal_scores(base: pl.Series, columns: Sequence[pl.Series]) -> list[np.ndarray]:
    """Return the normal score of each value's rank in the reference; 0 for a missing value."""
    ranked = np.sort(numbers(base))
    ranked = ranked[~np.isnan(ranked)]
    results: list[np.ndarray] = []
    for column in columns:
        values = numbers(column)
        if not len(ranked):
            results.append(np.zeros(len(values)))
            continue
        ranks = (np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right")) / 2
        shares = np.clip((ranks + 0.5) / (len(ranked) + 1), 0.002, 0.998)
        results.append(np.where(np.isnan(values), 0.0, probit(shares)))
    return results


def _number_codes(scores: Sequence[np.ndarray], columns: Sequence[pl.Series]) -> _Codes:
    """Code a number by its score, the score's square, and whether it is missing."""
    missing = tuple(np.isnan(numbers(c)).astype(float) for c in columns)
    return [tuple(scores), tuple((s**2 - 1) / 1.5 for s in scores), missing]


def _category_codes(base: pl.Series, guides: np.ndarray, columns: Sequence[pl.Series]) -> _Codes:
    """Code a category by the means of the output and of the numbers in it.

    The means are reduced to their two main directions, as correspondence analysis does.
    """
    keys, index = np.unique(texts(base), return_inverse=True)
    counts = np.bincount(index, minlength=len(keys)).astype(float)
    guides = (guides - guides.mean(0)) / np.maximum(guides.std(0), 1e-9)
    sums = np.column_stack([np.bincount(index, g, minlength=len(keys)) for g in guides.T])
    means = sums / (counts + 10.0)[:, None]
    _, _, directions = np.linalg.svd(means[:, 1:] * np.sqrt(counts)[:, None], full_matrices=False)
    values = np.column_stack([means[:, :1], means[:, 1:] @ directions[:2].T])
    coded: list[np.ndarray] = []
    for column in columns:
        categories = texts(column)
        at = np.minimum(np.searchsorted(keys, categories), len(keys) - 1)
        coded.append(np.where((keys[at] == categories)[:, None], values[at], 0.0))
    return [tuple(c[:, i] for c in coded) for i in range(values.shape[1])]
