"""Read the values of one column: as numbers, as texts, or as missing."""

import numpy as np
import polars as pl

from headwater.spec.data.feature import FeatureKind

__all__ = ["is_number", "missing_share", "numbers", "probit", "texts"]


def is_number(kind: FeatureKind, *columns: pl.Series) -> bool:
    """Tell whether a feature is declared a number, and every window holds numbers.

    Otherwise it is a category.

    Parameters
    ----------
    kind
        As the pipeline declares it.
    columns
        Its values, a column for each window.
    """
    return kind.dtype in ("float", "int") and all(c.dtype.is_numeric() for c in columns)


def numbers(column: pl.Series) -> np.ndarray:
    """Return a column of numbers, shape ``(rows,)``; null and infinite values become NaN.

    Examples
    --------
    >>> numbers(pl.Series([1, None, 3]))
    array([ 1., nan,  3.])
    """
    values = column.cast(pl.Float64).to_numpy().astype(np.float64, copy=True)
    values[~np.isfinite(values)] = np.nan
    return values


def texts(column: pl.Series) -> np.ndarray:
    r"""Return a column as texts, shape ``(rows,)``; null becomes ``"\0none"``, a category too."""
    return column.cast(pl.String).fill_null("\0none").to_numpy().astype(str)


def missing_share(column: pl.Series) -> float:
    """Return the share of rows without a value, 0 to 1; NaN and infinity are no values.

    Examples
    --------
    >>> missing_share(pl.Series([1.0, None, float("inf"), 4.0]))
    0.5
    """
    if column.dtype.is_numeric():
        return float(np.isnan(numbers(column)).mean())
    return column.null_count() / max(len(column), 1)


def probit(shares: np.ndarray) -> np.ndarray:
    """Return the normal scores of ranks.

    Parameters
    ----------
    shares
        Ranks, above 0 and below 1.
    """
    from scipy.special import ndtri  # noqa: PLC0415 - a while to import

    return np.asarray(ndtri(shares))
