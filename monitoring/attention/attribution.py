"""What moved, looked at closer: what each column would cost, by one of two stories.

- *The world moved*: other rows came, and labels follow features as before (covariate shift). Then the
  reference, weighted by the ratio of densities, gives the metric to expect (Shimodaira, "Improving
  predictive inference under covariate shift", 2000).
- *The column moved*: then it is replaced (:mod:`headwater.monitoring.attention.counterfactual`).

Which one it is, the other columns tell (:mod:`headwater.monitoring.attention.relations`).
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

__all__ = ["MOST", "Attributions", "ColumnAttribution", "SkippedColumn", "look"]

MOST = 8
"""Columns that are played through."""

_SCREENED = 40  # columns whose weight in the outputs is tried, to choose these
_RANKS = 0.06  # distance of distribution functions from which a column is looked at
_BROKEN = 0.08  # rank correlation that a column must have lost before its relation is called broken
_BROKEN_WORLD = 0.3  # the same where other rows came
_AT_TIMES = 2.0  # times what is lost of a relation in windows of the reference
_RATIO = 20.0  # that a density ratio is cut at
_FREQUENT = 21  # bins that are compared
_CLEAR = 4.0  # standard errors from which a column moved by more than it does from time to time


class ColumnAttribution(NamedTuple):
    """What was found about one column.

    Parameters
    ----------
    name
        Its name.
    output_effect
        How much the champion's outputs move because of it, in units of the output.
    loss
        Of the metric, because of it.
    column
        What labelled rows would hold in it, where it moved alone; None where the world moved.
    kept
        Share of its rank that it still says: 1 all, 0 none, below 0 the reverse.
    broken
        Whether only its relations told.
    clear
        Whether it moved by more than it does from time to time.
    """

    name: str
    output_effect: float
    loss: Loss
    column: pl.Series | None
    kept: float
    broken: bool
    clear: bool

    @property
    def alone(self) -> bool:
        """Whether it moved by itself, and not with the world."""
        return self.column is not None


class SkippedColumn(NamedTuple):
    """A column that moved and was not looked at; its weight in the outputs, None if not tried."""

    column: ColumnDrift
    weight: float | None


class Attributions(NamedTuple):
    """What was looked at, and what was not since other columns weigh more."""

    closer: list[ColumnAttribution]
    skipped: list[SkippedColumn]


class _Ratios(NamedTuple):
    """Density now over density then, for each row of reference and weighted side.

    `outside` is the share of the current window where the reference has next to nothing; `clear` says
    whether they differ by more than luck and the time make them.
    """

    reference: np.ndarray
    weighted: np.ndarray
    outside: float
    clear: bool


def look(case: WindowPair, columns: Sequence[ColumnDrift]) -> Attributions:
    """Look closer at what moved, at most at 8 columns; the outputs choose where there are more.

    Parameters
    ----------
    case
        The two windows.
    columns
        How far each of them moved, as far as that was judged.
    """
    moved = {c.name for c in columns if c.drifted}
    moved |= {k.name for k in case.features if _more_missing(case, k.name) or _reshaped(case, k.name)}
    chosen = [k.name for k in case.features if k.name in moved]
    skipped: list[SkippedColumn] = []
    if len(chosen) > MOST:
        by_name = {c.name: c for c in columns}
        chosen.sort(key=lambda name: -_far(by_name[name]) if name in by_name else -math.inf)
        weights = {name: _weight(case, name) for name in chosen[:_SCREENED]}
        chosen.sort(key=lambda name: -weights.get(name, -1.0))
        skipped = [SkippedColumn(by_name[n], weights.get(n)) for n in chosen[MOST:] if n in by_name]
        chosen = chosen[:MOST]
    closer = [_closer(case, name, sorted(moved - {name})) for name in chosen]
    alone = [one.name for one in closer if one.alone]
    world = len(alone) < len(closer) or bool(skipped)
    known = {*alone, *(moved - set(chosen))}
    broken = _broken(case, known, alone, _BROKEN_WORLD if world else _BROKEN)
    closer = [one for one in closer if one.name not in broken]
    for name in broken:
        closer.append(_closer(case, name, sorted({*alone, *broken} - {name}), broken=True))
    return Attributions(closer, skipped)


# Which columns.


def _more_missing(case: WindowPair, name: str) -> bool:
    more = missing_share(case.current[name]) - missing_share(case.reference[name])
    return more > 0.02 + 2 / math.sqrt(min(case.current.height, case.reference.height))


def _reshaped(case: WindowPair, name: str) -> bool:
    """Tell whether a number's ranks moved: a long tail can hide that from a distance in its own unit."""
    if not case.is_number(name):
        return False
    both = (numbers(case.reference[name]), numbers(case.current[name]))
    before, now = (np.sort(given[~np.isnan(given)]) for given in both)
    if not len(before) or not len(now):
        return False
    shares = [
        np.searchsorted(before, before, side) / len(before)
        - np.searchsorted(now, before, side) / len(now)
        for side in ("left", "right")
    ]
    distance = max(float(np.abs(share).max()) for share in shares)
    return distance > max(_RANKS, 2 * math.sqrt(1 / len(before) + 1 / len(now)))


def _far(column: ColumnDrift) -> float:
    if "p_value" in column.measure:
        return -math.log10(max(column.distance, 1e-300))
    return column.distance / column.threshold


def _weight(case: WindowPair, name: str) -> float:
    """Try on a few rows how much the outputs move with a column."""
    few = case.labelled.frame[:300]
    values = case.current[name].cast(few[name].dtype, strict=False)
    drawn = values.gather(case.drawn.integers(0, len(values), few.height)).alias(name)
    return float(np.abs(case.predict(few.with_columns(drawn)) - case.labelled.outputs[:300]).mean())


def _broken(case: WindowPair, known: set[str], alone: Sequence[str], least: float) -> list[str]:
    """Name columns that are no longer what the others say, but those known; the clearest first.

    A column that is already suspected does not testify against others.
    """
    least = max(least, 8 / math.sqrt(min(case.current.height, case.reference.height)))
    suspected: list[str] = []
    candidates = [k.name for k in case.features if k.name not in known]
    while candidates and len(suspected) < MOST // 2:
        kept = case.relations.kept_each(candidates, [*alone, *suspected])
        lost = {name: kept[name].lost for name in candidates}
        candidates = [n for n in candidates if lost[n] > max(least, _AT_TIMES * kept[n].at_times)]
        candidates.sort(key=lambda n: -lost[n])
        suspected += candidates[:1]
        candidates = candidates[1:]
    return suspected


# One column, played through.


def _closer(
    case: WindowPair, name: str, others: Sequence[str], *, broken: bool = False
) -> ColumnAttribution:
    ratios = _ratios(case, name)
    if broken or _moved_alone(case, name, ratios, others):
        kept = case.relations.kept(name, others)
        return _replaced(case, name, kept, broken=broken, clear=ratios.clear)
    side, weights = case.weighted, ratios.weighted
    mean = float((side.outputs.T * weights).mean() / max(weights.mean(), 1e-9))
    effect = abs(mean - float(side.outputs.mean())) if side.outputs.ndim == 1 else 0.0
    lost = loss(case.metric, side, side.outputs, weights)
    return ColumnAttribution(name, effect, lost, column=None, kept=1.0, broken=False, clear=ratios.clear)


def _replaced(
    case: WindowPair, name: str, kept: Predictability, *, broken: bool, clear: bool
) -> ColumnAttribution:
    side, still = case.labelled, _still_says(kept)
    play = replaced_numbers if case.is_number(name) else replaced_categories
    column = play(side.frame[name], case.current[name], still, case.drawn)
    outputs = case.predict(side.frame.with_columns(column))
    effect = float(np.abs(outputs - side.outputs).mean())
    return ColumnAttribution(
        name, effect, loss(case.metric, side, outputs), column, still, broken, clear
    )


def _still_says(kept: Predictability) -> float:
    """Say how much of a column's rank is still told: 1 all, 0 none, below 0 the reverse."""
    if abs(kept.before) < 0.15:
        return 1.0
    left = kept.now / kept.before
    return 1.0 if left > 0.9 else max(left, -1.0)


def _moved_alone(case: WindowPair, name: str, ratios: _Ratios, others: Sequence[str]) -> bool:
    """Tell whether the others stayed; asked with and without those that moved too.

    A number that moved no further than it does from time to time is not suspected. Where no other column
    goes with this one, that is no witness. Then a number is taken to have moved alone, and a category
    only by values that the reference did not have.
    """
    number = case.is_number(name)
    if number and not ratios.clear:
        return False
    if ratios.outside > (0.2 if number else 0.02):
        return True
    slope, error = case.relations.slope(name, ratios.reference)
    if not math.isfinite(error):
        return number
    if slope + error < 0.5 or not others:
        return slope + error < 0.5
    slope, error = case.relations.slope(name, ratios.reference, others)
    return math.isfinite(error) and slope + error < 0.5


def _ratios(case: WindowPair, name: str) -> _Ratios:
    columns = [frame[name] for frame in (case.reference, case.current, case.weighted.frame)]
    number = case.is_number(name)
    binned = _number_bins(columns) if number else _category_bins(columns)
    size = int(max(b.max() for b in binned)) + 1
    before, now = (np.bincount(b, minlength=size) / len(b) for b in binned[:2])
    ratio = np.minimum(now / np.maximum(before, 1e-9), _RATIO)
    outside = float(np.maximum(now - _RATIO * before, 0.0).sum())
    frequent = np.argsort(before + now)[-_FREQUENT:]
    clear = _clear(case, binned[0], binned[1], frequent, ordered=number)
    return _Ratios(ratio[binned[0]], ratio[binned[2]], outside, clear)


def _clear(
    case: WindowPair, before: np.ndarray, now: np.ndarray, bins: np.ndarray, *, ordered: bool
) -> bool:
    """Tell whether the share of rows in a bin, or up to it, moved by more than from time to time."""
    first, second = (
        (at[:, None] <= bins if ordered else at[:, None] == bins).astype(float) for at in (before, now)
    )
    error = np.maximum(move_errors(first, second, case.relations.windows), 1e-9)
    return bool((np.abs(second.mean(axis=0) - first.mean(axis=0)) > _CLEAR * error).any())


def _number_bins(columns: Sequence[pl.Series]) -> list[np.ndarray]:
    """Tell in which twentieth of both windows a value is; what is missing has a bin of its own."""
    values = [numbers(column) for column in columns]
    pooled = np.concatenate(values[:2])
    pooled = pooled[~np.isnan(pooled)]
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, 21)[1:-1])) if len(pooled) else np.zeros(1)
    return [np.where(np.isnan(v), len(edges) + 1, np.searchsorted(edges, v)) for v in values]


def _category_bins(columns: Sequence[pl.Series]) -> list[np.ndarray]:
    held = [texts(column) for column in columns]
    keys = np.unique(np.concatenate(held))
    return [np.searchsorted(keys, each) for each in held]
