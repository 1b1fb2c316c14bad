"""Attribute a loss to columns that moved: the cost of each, by one of two stories.

- *The world moved*: other rows came, and labels follow features as before (covariate shift). Then the
  reference, weighted by the ratio of densities, has the expected metric (Shimodaira, "Improving
  predictive inference under covariate shift", 2000).
- *The column moved*: then it is replaced (:mod:`headwater.monitoring.attention.counterfactual`).

The other columns decide between the two (:mod:`headwater.monitoring.attention.relations`).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from headwater.monitoring.attention.counterfactual import replaced_categories, replaced_numbers
from headwater.monitoring.attention.relations import Predictability
from headwater.monitoring.attention.window_pair import WindowPair
from headwater.monitoring.measure.block_errors import move_errors
from headwater.monitoring.measure.columns import missing_share, numbers, texts
from headwater.monitoring.measure.drift import ColumnDrift
from headwater.monitoring.measure.losses import Loss, loss

__all__ = ["MOST", "Attributions", "ColumnAttribution", "SkippedColumn", "attribute"]

MOST = 8
"""Columns whose cost is computed."""

_SCREENED = 40  # columns whose weight in the outputs is tried, to choose these
_RANKS = 0.06  # distance of distribution functions from which a column is looked at
_BROKEN = 0.08  # rank correlation that a column must have lost before its relation is called broken
_BROKEN_WORLD = 0.3  # the same where other rows came
_AT_TIMES = 2.0  # times what is lost of a relation in windows of the reference
_RATIO = 20.0  # that a density ratio is cut at
_FREQUENT = 21  # bins that are compared
_CLEAR = 4.0  # standard errors from which a column moved by more than it does from time to time


class ColumnAttribution(NamedTuple):
    """The part of one column that moved.

    Parameters
    ----------
    name
        Its name.
    output_effect
        How much the champion's outputs move because of it, in units of the output.
    loss
        Of the metric, because of it.
    column
        Its values in labelled rows as they would be now, if it moved alone; None if the world moved.
    rank_share
        Share of its rank that it still tells: 1 all, 0 none, below 0 the reverse.
    broken
        Whether only its relations show a change.
    clear
        Whether it moved by more than it does from time to time.
    """

    name: str
    output_effect: float
    loss: Loss
    column: pl.Series | None
    rank_share: float
    broken: bool
    clear: bool

    @property
    def alone(self) -> bool:
        """Whether it moved by itself, and not with the world."""
        return self.column is not None


class SkippedColumn(NamedTuple):
    """A column that moved and has no attribution; its weight in the outputs, None if not tried."""

    column: ColumnDrift
    weight: float | None


class Attributions(NamedTuple):
    """Attributions of columns, and the columns that were skipped since others weigh more."""

    columns: list[ColumnAttribution]
    skipped: list[SkippedColumn]


class _Ratios(NamedTuple):
    """Density in the current window over density in the reference, for each row of two samples.

    `outside` is the share of the current window in which the reference has next to nothing. `clear` says
    whether the densities differ by more than luck and the time make them.
    """

    reference: np.ndarray
    weighted: np.ndarray
    outside: float
    clear: bool


def attribute(pair: WindowPair, columns: Sequence[ColumnDrift]) -> Attributions:
    """Attribute a cost to each column that moved; if over 8 did, to those that move the outputs most.

    Parameters
    ----------
    pair
        The two windows.
    columns
        How far each of them moved, as far as that was judged.
    """
    moved = {c.name for c in columns if c.drifted}
    moved |= {k.name for k in pair.features if _is_missing_more(pair, k.name) or _reshaped(pair, k.name)}
    chosen = [k.name for k in pair.features if k.name in moved]
    skipped: list[SkippedColumn] = []
    if len(chosen) > MOST:
        by_name = {c.name: c for c in columns}
        chosen.sort(key=lambda name: -_far(by_name[name]) if name in by_name else -math.inf)
        weights = {name: _weight(pair, name) for name in chosen[:_SCREENED]}
        chosen.sort(key=lambda name: -weights.get(name, -1.0))
        skipped = [SkippedColumn(by_name[n], weights.get(n)) for n in chosen[MOST:] if n in by_name]
        chosen = chosen[:MOST]
    attributions = [_attribution(pair, name, sorted(moved - {name})) for name in chosen]
    alone = [each.name for each in attributions if each.alone]
    world = len(alone) < len(attributions) or bool(skipped)
    known = {*alone, *(moved - set(chosen))}
    broken = _broken(pair, known, alone, _BROKEN_WORLD if world else _BROKEN)
    attributions = [each for each in attributions if each.name not in broken]
    for name in broken:
        attributions.append(_attribution(pair, name, sorted({*alone, *broken} - {name}), broken=True))
    return Attributions(attributions, skipped)


# Which columns.


def _is_missing_more(pair: WindowPair, name: str) -> bool:
    more = missing_share(pair.current[name]) - missing_share(pair.reference[name])
    return more > 0.02 + 2 / math.sqrt(min(pair.current.height, pair.reference.height))


def _reshaped(pair: WindowPair, name: str) -> bool:
    """Tell whether a number's ranks moved: a long tail can hide that from a distance in its own unit."""
    if not pair.is_number(name):
        return False
    columns = (numbers(pair.reference[name]), numbers(pair.current[name]))
    reference, current = (np.sort(values[~np.isnan(values)]) for values in columns)
    if not len(reference) or not len(current):
        return False
    shares = [
        np.searchsorted(reference, reference, side) / len(reference)
        - np.searchsorted(current, reference, side) / len(current)
        for side in ("left", "right")
    ]
    distance = max(float(np.abs(share).max()) for share in shares)
    return distance > max(_RANKS, 2 * math.sqrt(1 / len(reference) + 1 / len(current)))


def _far(column: ColumnDrift) -> float:
    if "p_value" in column.measure:
        return -math.log10(max(column.distance, 1e-300))
    return column.distance / column.threshold


def _weight(pair: WindowPair, name: str) -> float:
    """Measure on a few rows how much the outputs move with a column."""
    few = pair.labelled.frame[:300]
    values = pair.current[name].cast(few[name].dtype, strict=False)
    drawn = values.gather(pair.rng.integers(0, len(values), few.height)).alias(name)
    return float(np.abs(pair.predict(few.with_columns(drawn)) - pair.labelled.outputs[:300]).mean())


def _broken(pair: WindowPair, known: set[str], alone: Sequence[str], least: float) -> list[str]:
    """List columns whose relations to the others broke, except those known; the clearest first.

    A column that is already suspected is no witness against others.
    """
    least = max(least, 8 / math.sqrt(min(pair.current.height, pair.reference.height)))
    suspected: list[str] = []
    candidates = [k.name for k in pair.features if k.name not in known]
    while candidates and len(suspected) < MOST // 2:
        relations = pair.relations.predictabilities(candidates, [*alone, *suspected])
        lost = {name: relations[name].lost for name in candidates}
        candidates = [
            n for n in candidates if lost[n] > max(least, _AT_TIMES * relations[n].lost_in_reference)
        ]
        candidates.sort(key=lambda n: -lost[n])
        suspected += candidates[:1]
        candidates = candidates[1:]
    return suspected


# The cost of one column.


def _attribution(
    pair: WindowPair, name: str, others: Sequence[str], *, broken: bool = False
) -> ColumnAttribution:
    ratios = _ratios(pair, name)
    if broken or _moved_alone(pair, name, ratios, others):
        predictability = pair.relations.predictability(name, others)
        return _replaced(pair, name, predictability, broken=broken, clear=ratios.clear)
    side, weights = pair.weighted, ratios.weighted
    mean = float((side.outputs.T * weights).mean() / max(weights.mean(), 1e-9))
    effect = abs(mean - float(side.outputs.mean())) if side.outputs.ndim == 1 else 0.0
    lost = loss(pair.metric, side, side.outputs, weights)
    return ColumnAttribution(
        name, effect, lost, column=None, rank_share=1.0, broken=False, clear=ratios.clear
    )


def _replaced(
    pair: WindowPair, name: str, predictability: Predictability, *, broken: bool, clear: bool
) -> ColumnAttribution:
    side, rank_share = pair.labelled, _rank_share(predictability)
    play = replaced_numbers if pair.is_number(name) else replaced_categories
    column = play(side.frame[name], pair.current[name], rank_share, pair.rng)
    outputs = pair.predict(side.frame.with_columns(column))
    effect = float(np.abs(outputs - side.outputs).mean())
    return ColumnAttribution(
        name, effect, loss(pair.metric, side, outputs), column, rank_share, broken, clear
    )


def _rank_share(predictability: Predictability) -> float:
    """Return the share of its rank that a column still tells: 1 all, 0 none, below 0 the reverse."""
    if abs(predictability.reference) < 0.15:
        return 1.0
    share = predictability.current / predictability.reference
    return 1.0 if share > 0.9 else max(share, -1.0)


def _moved_alone(pair: WindowPair, name: str, ratios: _Ratios, others: Sequence[str]) -> bool:
    """Tell whether a column moved alone: whether the others stayed, with and without those that moved.

    A number that moved no further than it does from time to time is not suspected. If no other column
    depends on this one, there is no witness. Then a number is taken to have moved alone, and a category
    only by values that the reference did not have.
    """
    number = pair.is_number(name)
    if number and not ratios.clear:
        return False
    if ratios.outside > (0.2 if number else 0.02):
        return True
    slope, error = pair.relations.slope(name, ratios.reference)
    if not math.isfinite(error):
        return number
    if slope + error < 0.5 or not others:
        return slope + error < 0.5
    slope, error = pair.relations.slope(name, ratios.reference, others)
    return math.isfinite(error) and slope + error < 0.5


def _ratios(pair: WindowPair, name: str) -> _Ratios:
    columns = [frame[name] for frame in (pair.reference, pair.current, pair.weighted.frame)]
    number = pair.is_number(name)
    binned = _number_bins(columns) if number else _category_bins(columns)
    size = int(max(b.max() for b in binned)) + 1
    reference, current = (np.bincount(b, minlength=size) / len(b) for b in binned[:2])
    ratio = np.minimum(current / np.maximum(reference, 1e-9), _RATIO)
    outside = float(np.maximum(current - _RATIO * reference, 0.0).sum())
    frequent = np.argsort(reference + current)[-_FREQUENT:]
    clear = _clear(pair, binned[0], binned[1], frequent, ordered=number)
    return _Ratios(ratio[binned[0]], ratio[binned[2]], outside, clear)


def _clear(
    pair: WindowPair, reference: np.ndarray, current: np.ndarray, bins: np.ndarray, *, ordered: bool
) -> bool:
    """Tell whether the share of rows in a bin, or up to it, moved by more than from time to time."""
    first, second = (
        (at[:, None] <= bins if ordered else at[:, None] == bins).astype(float)
        for at in (reference, current)
    )
    error = np.maximum(move_errors(first, second, pair.relations.windows), 1e-9)
    return bool((np.abs(second.mean(axis=0) - first.mean(axis=0)) > _CLEAR * error).any())


def _number_bins(columns: Sequence[pl.Series]) -> list[np.ndarray]:
    """Sort values into twentieths of both windows; missing values have a bin of their own."""
    values = [numbers(column) for column in columns]
    pooled = np.concatenate(values[:2])
    pooled = pooled[~np.isnan(pooled)]
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, 21)[1:-1])) if len(pooled) else np.zeros(1)
    return [np.where(np.isnan(v), len(edges) + 1, np.searchsorted(edges, v)) for v in values]


def _category_bins(columns: Sequence[pl.Series]) -> list[np.ndarray]:
    categories = [texts(column) for column in columns]
    keys = np.unique(np.concatenate(categories))
    return [np.searchsorted(keys, each) for each in categories]
