"""Replace a column that moved alone, in labelled rows, by the values that it would have now.

A sensor is stuck, scaled, swapped, noisy or silent, while labels follow the quantity that it measured.
So the column's values in the reference are replaced by those that it would have now, and the champion
is scored on them, as permutation importance does (Breiman, "Random forests", 2001).
"""

import math

import numpy as np
import polars as pl

from headwater.monitoring.measure.columns import numbers, probit, texts

__all__ = ["replaced_categories", "replaced_numbers"]


def replaced_numbers(
    base: pl.Series, current: pl.Series, rank_share: float, rng: np.random.Generator
) -> pl.Series:
    """Move every value to the same quantile of the current window, its rank blurred by the lost share.

    Parameters
    ----------
    base
        The numbers that labelled rows hold.
    current
        Those of the current window.
    rank_share
        Share of the rank that the column still tells: 1 all, 0 none, below 0 the reverse.
    rng
        Breaks ties, blurs, and chooses the rows that lose their value.

    Returns
    -------
    pl.Series
        As many as `base`, and of its name and type.

    Examples
    --------
    >>> base, now = pl.Series("load", [3.0, 1.0, 2.0]), pl.Series("load", [10.0, 20.0, 30.0])
    >>> replaced_numbers(base, now, 1.0, np.random.default_rng(0)).to_list()
    [30.0, 10.0, 20.0]
    """
    values = pl.Series(base.name, _replaced(numbers(base), numbers(current), rank_share, rng)).fill_nan(
        None
    )
    return values.round().cast(base.dtype) if base.dtype.is_integer() else values.cast(base.dtype)


def _replaced(
    base: np.ndarray, current: np.ndarray, rank_share: float, rng: np.random.Generator
) -> np.ndarray:
    present = np.sort(current[~np.isnan(current)])
    if not len(present):
        return np.full(len(base), np.nan)
    has_value = ~np.isnan(base)
    ranks = np.empty(len(base))
    order = np.lexsort((rng.random(len(base)), np.where(has_value, base, np.inf)))
    ranks[order] = np.arange(len(base))
    shares = (ranks + 0.5) / max(has_value.sum(), 1)
    if rank_share < 1.0:
        scores = probit(np.clip(shares, 1e-4, 1 - 1e-4))
        blurred = rank_share * scores + math.sqrt(max(1 - rank_share**2, 0.0)) * rng.normal(
            size=len(base)
        )
        shares = (np.argsort(np.argsort(blurred)) + 0.5) / len(base)
    at = np.clip((shares * len(present)).astype(int), 0, len(present) - 1)
    values = np.where(has_value, present[at], np.nan)
    newly_missing = float(np.isnan(current).mean()) - float((~has_value).mean())
    if newly_missing > 0:
        values[rng.random(len(base)) < newly_missing / max(float(has_value.mean()), 1e-9)] = np.nan
    return values


def replaced_categories(
    base: pl.Series, current: pl.Series, rank_share: float, rng: np.random.Generator
) -> pl.Series:
    """Move as few rows as the shares of the categories ask for, and more if the relation broke.

    Parameters
    ----------
    base, current, rank_share
        As for :func:`replaced_numbers`.
    rng
        Chooses the rows that move, and where to.

    Returns
    -------
    pl.Series
        As many as `base`, and of its name and type.
    """
    categories, target = texts(base), texts(current)
    keys, index = np.unique(np.concatenate([categories, target]), return_inverse=True)
    shares = [
        np.bincount(part, minlength=len(keys)) / len(part) for part in np.split(index, [len(categories)])
    ]
    surplus = np.maximum(shares[0] - shares[1], 0) / np.maximum(shares[0], 1e-12)
    deficit = np.maximum(shares[1] - shares[0], 0)
    moves = rng.random(len(categories)) < surplus[index[: len(categories)]]
    chosen = index[: len(categories)].copy()
    if deficit.sum() > 0:
        chosen[moves] = rng.choice(len(keys), int(moves.sum()), p=deficit / deficit.sum())
    if rank_share < 1.0:
        shuffled = rng.random(len(categories)) < 1 - max(rank_share, 0.0)
        chosen[shuffled] = rng.choice(len(keys), int(shuffled.sum()), p=shares[1])
    values = pl.Series(base.name, keys[chosen].tolist(), dtype=pl.String).replace("\0none", None)
    if base.dtype == pl.Boolean:
        return (values == "true").cast(base.dtype)
    return values.cast(base.dtype, strict=False)
