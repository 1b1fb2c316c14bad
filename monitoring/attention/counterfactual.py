"""A column that moved alone, played through: what labelled rows would hold in it now.

A sensor is stuck, scaled, swapped, noisy or silent, and labels follow what it no longer says. So the
column's values in the reference are replaced by what it would say now, and the champion is scored on
them, as permutation importance does (Breiman, "Random forests", 2001).
"""

import math

import numpy as np
import polars as pl

from headwater.monitoring.measure.columns import numbers, probit, texts

__all__ = ["replaced_categories", "replaced_numbers"]


def replaced_numbers(
    base: pl.Series, now: pl.Series, kept: float, drawn: np.random.Generator
) -> pl.Series:
    """Move every value to the same quantile of the current window, its rank blurred by what is lost.

    Parameters
    ----------
    base
        The numbers that labelled rows hold.
    now
        Those of the current window.
    kept
        Share of the rank that the column still says: 1 all, 0 none, below 0 the reverse.
    drawn
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
    values = pl.Series(base.name, _moved(numbers(base), numbers(now), kept, drawn)).fill_nan(None)
    return values.round().cast(base.dtype) if base.dtype.is_integer() else values.cast(base.dtype)


def _moved(base: np.ndarray, now: np.ndarray, kept: float, drawn: np.random.Generator) -> np.ndarray:
    known = np.sort(now[~np.isnan(now)])
    if not len(known):
        return np.full(len(base), np.nan)
    given = ~np.isnan(base)
    ranks = np.empty(len(base))
    order = np.lexsort((drawn.random(len(base)), np.where(given, base, np.inf)))
    ranks[order] = np.arange(len(base))
    shares = (ranks + 0.5) / max(given.sum(), 1)
    if kept < 1.0:
        scores = probit(np.clip(shares, 1e-4, 1 - 1e-4))
        blurred = kept * scores + math.sqrt(max(1 - kept**2, 0.0)) * drawn.normal(size=len(base))
        shares = (np.argsort(np.argsort(blurred)) + 0.5) / len(base)
    at = np.clip((shares * len(known)).astype(int), 0, len(known) - 1)
    values = np.where(given, known[at], np.nan)
    more = float(np.isnan(now).mean()) - float((~given).mean())
    if more > 0:
        values[drawn.random(len(base)) < more / max(float(given.mean()), 1e-9)] = np.nan
    return values


def replaced_categories(
    base: pl.Series, now: pl.Series, kept: float, drawn: np.random.Generator
) -> pl.Series:
    """Move as few rows as the shares of the categories ask for; and more where the relation broke.

    Parameters
    ----------
    base, now, kept
        As for :func:`replaced_numbers`.
    drawn
        Chooses the rows that move, and where to.

    Returns
    -------
    pl.Series
        As many as `base`, and of its name and type.
    """
    held, target = texts(base), texts(now)
    keys, index = np.unique(np.concatenate([held, target]), return_inverse=True)
    shares = [
        np.bincount(part, minlength=len(keys)) / len(part) for part in np.split(index, [len(held)])
    ]
    surplus = np.maximum(shares[0] - shares[1], 0) / np.maximum(shares[0], 1e-12)
    wanted = np.maximum(shares[1] - shares[0], 0)
    moved = drawn.random(len(held)) < surplus[index[: len(held)]]
    chosen = index[: len(held)].copy()
    if wanted.sum() > 0:
        chosen[moved] = drawn.choice(len(keys), int(moved.sum()), p=wanted / wanted.sum())
    if kept < 1.0:
        shuffled = drawn.random(len(held)) < 1 - max(kept, 0.0)
        chosen[shuffled] = drawn.choice(len(keys), int(shuffled.sum()), p=shares[1])
    values = pl.Series(base.name, keys[chosen].tolist(), dtype=pl.String).replace("\0none", None)
    if base.dtype == pl.Boolean:
        return (values == "true").cast(base.dtype)
    return values.cast(base.dtype, strict=False)
