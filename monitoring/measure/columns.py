"""How one column's values are read: as numbers, as texts, or as not there."""

import numpy as np
import polars as pl

from headwater.spec.data.feature import FeatureKind

__all__ = ["is_number", "missing_share", "numbers", "probit", "texts"]


def is_number(kind: FeatureKind, *columns: pl.Series) -> bool:
    """Tell whether a feature is declared a number and every window holds numbers; else it is a category.

    Parameters
    ----------
    kind
        As the pipeline declares it.
    columns
        Its values, a column for each window.
    """
    return kind.dtype in ("float", "int") and all(c.dtype.is_numeric() for c in columns)


def numbers(column: pl.Series) -> np.ndarray:
    """Give a column of numbers, shape ``(rows,)``; what is null, NaN or infinite as NaN.

    Examples
    --------
    >>> numbers(pl.Series([1, None, 3]))
    array([ 1., nan,  3.])
    """
    given = column.cast(pl.Float64).to_numpy().astype(np.float64, copy=True)
    given[~np.isfinite(given)] = np.nan
    return given


def texts(column: pl.Series) -> np.ndarray:
    r"""Give a column as texts, shape ``(rows,)``; null as ``"\0none"``, which is a category too."""
    return column.cast(pl.String).fill_null("\0none").to_numpy().astype(str)


def missing_share(column: pl.Series) -> float:
    """Give the share of rows without a value, 0 to 1; of numbers, NaN and infinity are none.

    Examples
    --------
    >>> missing_share(pl.Series([1.0, None, float("inf"), 4.0]))
    0.5
    """
    if column.dtype.is_numeric():
        return float(np.isnan(numbers(column)).mean())
    return column.null_count() / max(len(column), 1)


def probit(shares: np.ndarray) -> np.ndarray:
    """Give the normal scores of ranks.

    Parameters
    ----------
    shares
        Ranks, above 0 and below 1.
    """
    from scipy.special import ndtri  # noqa: PLC0415 - a while to import

    return np.asarray(ndtri(shares))
