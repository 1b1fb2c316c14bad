"""Test whether a column moved between two windows, as Evidently's preset does by default.

Evidently 0.7.23 chooses by the kind of column, the number of values and the rows of the reference
(``evidently/legacy/calculations/stattests/registry.py``). Here NumPy and SciPy do its tests on Polars
columns, since most of its preset's cost is its plots. The verdicts are the same:
``tests/monitoring/test_drift.py`` and ``benchmarks/monitoring/drift_cost.py`` compare them column by
column.

============================  ================================  ===============================
column                        reference of 1,000 rows or fewer  more
============================  ================================  ===============================
number, over 5 values         Kolmogorov-Smirnov, p <= 0.05     Wasserstein / std >= 0.1
number of 3 to 5, category    chi-square, p < 0.05              Jensen-Shannon distance >= 0.1
either, at most 2 values      z-test of shares, p < 0.05        Jensen-Shannon distance >= 0.1
============================  ================================  ===============================

Counts of rows and values leave out null, NaN and infinity. An integer column without nulls and with at
most 10 values in the current window is a category, as is a bool. Text of which over half is unique is
no category, and is not judged.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl

from headwater.learners.process_state import ignoring_warnings
from headwater.spec.data.feature import FeatureKind

__all__ = ["ColumnDrift", "column_drift", "drift", "is_category", "usable"]

_SMALL = 1_000  # rows of the reference up to which there is a p value
_FEW_VALUES = 5
_FEW_INTEGERS = 10
_P_VALUE = 0.05
_DISTANCE = 0.1
_UNIQUE_TEXT = 0.5


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """How far one column moved.

    Parameters
    ----------
    name
        The column's.
    measure
        Evidently's name of the test or distance.
    distance
        Evidently's drift score: a p value, lower if the column moved more, or a distance.
    threshold
        Where drift begins.
    drifted
        Whether it did.
    """

    name: str
    measure: str
    distance: float
    threshold: float
    drifted: bool


class _Shares(NamedTuple):
    """Counts of the values that either window holds, in the same order."""

    reference: np.ndarray
    current: np.ndarray


def drift(
    reference: pl.DataFrame, current: pl.DataFrame, features: Sequence[FeatureKind]
) -> tuple[list[ColumnDrift], list[str]]:
    """Compare two windows, column by column.

    Parameters
    ----------
    reference, current
        A column for each feature; others are not looked at.
    features
        What the columns are.

    Returns
    -------
    tuple
        The columns that were judged, in the order of the features, and a note for each of the others.
    """
    columns: list[ColumnDrift] = []
    notes: list[str] = []
    for kind in features:
        absent = [
            which
            for which, frame in (("reference", reference), ("current", current))
            if kind.name not in frame.columns
        ]
        result: ColumnDrift | str = (
            f"{kind.name}: not judged, the {absent[0]} window lacks it" if absent else ""
        )
        if not absent:
            result = column_drift(reference[kind.name], current[kind.name], kind)
        if isinstance(result, str):
            notes.append(result)
        else:
            columns.append(result)
    return columns, notes


def column_drift(reference: pl.Series, current: pl.Series, kind: FeatureKind) -> ColumnDrift | str:
    """Compare one column of two windows; if it cannot be judged, return a note that says why.

    Parameters
    ----------
    reference, current
        Its values.
    kind
        What it is.

    Examples
    --------
    >>> from headwater.spec.data.feature import Feature
    >>> low, high = pl.Series([0.0, 1.0, 2.0, 3.0] * 300), pl.Series([2.0, 3.0, 4.0, 5.0] * 300)
    >>> load = column_drift(low, high, Feature("load", float))
    >>> load.measure, round(load.distance, 3), load.drifted
    ('Wasserstein distance (normed)', 1.789, True)
    """
    pair: list[pl.Series] = []
    for which, column in (("reference", reference), ("current", current)):
        if (reason := _misfit(kind, column)) is not None:
            return f"{kind.name}: not judged, the {which} window holds {reason}"
        pair.append(usable(column))
        if not len(pair[-1]):
            return f"{kind.name}: not judged, the {which} window has no value of it"
    if is_category(kind, current):
        if kind.dtype == "str" and any(c.n_unique() > _UNIQUE_TEXT * len(c) for c in pair[1:]):
            return f"{kind.name}: not judged, most of its texts are unique"
        return _categories(kind.name, pair[0], pair[1])
    return _numbers(kind.name, pair[0], pair[1])


def usable(column: pl.Series) -> pl.Series:
    """Return the values without null, NaN and infinity; numbers as 64-bit floats, bools as text."""
    if column.dtype == pl.Boolean:
        return column.drop_nulls().cast(pl.String)
    if column.dtype.is_numeric():
        numbers = column.drop_nulls()
        return numbers.cast(pl.Float64).filter(numbers.cast(pl.Float64).is_finite())
    return column.drop_nulls()


def is_category(kind: FeatureKind, current: pl.Series) -> bool:
    """Tell whether Evidently takes a column for a category, which it decides by the current window."""
    if kind.dtype in ("str", "bool") or current.dtype == pl.Boolean:
        return True
    whole = current.dtype.is_integer() and not current.null_count()
    return whole and current.n_unique() <= _FEW_INTEGERS


def _misfit(kind: FeatureKind, column: pl.Series) -> str | None:
    """Describe the values that a column holds instead of its declared type; None if they fit."""
    dtype = column.dtype
    if dtype == pl.Null:
        return None
    if dtype.is_temporal():
        return "timestamps"
    if dtype.is_nested() or dtype in (pl.Object, pl.Binary):
        return f"values of type {dtype}"
    is_text = dtype in (pl.String, pl.Categorical, pl.Enum)
    if is_text and kind.dtype != "str":
        return "text instead of numbers"
    return "numbers instead of text" if kind.dtype == "str" and not is_text else None


def _numbers(name: str, reference: pl.Series, current: pl.Series) -> ColumnDrift:
    first, second = reference.to_numpy(), current.to_numpy()
    if _has_few_values(reference, current):
        return _categories(name, reference, current)
    if len(first) <= _SMALL:
        from scipy import stats  # noqa: PLC0415 - half a second to import

        with ignoring_warnings(RuntimeWarning):  # an exact p value given up for another
            p_value = float(stats.ks_2samp(first, second).pvalue)
        return _column(name, "K-S p_value", p_value, drifted=p_value <= _P_VALUE)
    distance = _wasserstein(first, second) / max(float(first.std()), 0.001)
    return _column(
        name, "Wasserstein distance (normed)", distance, _DISTANCE, drifted=distance >= _DISTANCE
    )


def _has_few_values(reference: pl.Series, current: pl.Series) -> bool:
    """Tell whether both windows together have at most 5 values; a glance is enough for most."""
    if len({*reference[:100], *current[:100]}) > _FEW_VALUES:
        return False
    return pl.concat([reference, current]).n_unique() <= _FEW_VALUES


def _categories(name: str, reference: pl.Series, current: pl.Series) -> ColumnDrift:
    counts = _counts(reference, current)
    if len(reference) > _SMALL:
        distance = _jensen_shannon(counts)
        return _column(
            name, "Jensen-Shannon distance", distance, _DISTANCE, drifted=distance >= _DISTANCE
        )
    if len(counts.reference) > 2:
        p_value = _chi_square(counts)
        return _column(name, "chi-square p_value", p_value, drifted=p_value < _P_VALUE)
    p_value = _z_test(counts)
    return _column(name, "Z-test p_value", p_value, drifted=p_value < _P_VALUE)


def _column(
    name: str, measure: str, distance: float, threshold: float = _P_VALUE, *, drifted: bool
) -> ColumnDrift:
    return ColumnDrift(
        name=name, measure=measure, distance=float(distance), threshold=threshold, drifted=bool(drifted)
    )


def _counts(reference: pl.Series, current: pl.Series) -> _Shares:
    if reference.dtype != current.dtype:
        reference, current = reference.cast(pl.String), current.cast(pl.String)
    tables = [
        column.rename("value").value_counts(name=f"n{i}")
        for i, column in enumerate((reference, current))
    ]
    joined = tables[0].join(tables[1], on="value", how="full", coalesce=True).fill_null(0).sort("value")
    return _Shares(joined["n0"].to_numpy().astype(float), joined["n1"].to_numpy().astype(float))


def _jensen_shannon(counts: _Shares) -> float:
    """Compute the distance with natural logarithms (Lin, "Divergence measures", 1991)."""
    first, second = counts.reference / counts.reference.sum(), counts.current / counts.current.sum()
    middle = (first + second) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(p > 0, p * np.log(p / middle), 0.0).sum() for p in (first, second)]
    return math.sqrt(max(float(sum(parts)) / 2, 0.0))


def _chi_square(counts: _Shares) -> float:
    from scipy import special  # noqa: PLC0415

    expected = counts.reference * (counts.current.sum() / counts.reference.sum())
    if (expected == 0).any():
        return 0.0  # a value that the reference never had
    statistic = float(((counts.current - expected) ** 2 / expected).sum())
    return float(special.chdtrc(len(expected) - 1, statistic))


def _z_test(counts: _Shares) -> float:
    if len(counts.reference) < 2:
        return 1.0
    rows = np.array([counts.reference.sum(), counts.current.sum()])
    shares = np.array([counts.reference[0], counts.current[0]]) / rows
    pooled = float((shares * rows).sum() / rows.sum())
    error = math.sqrt(pooled * (1 - pooled) * float((1 / rows).sum()))
    return math.erfc(abs(float(shares[0] - shares[1])) / error / math.sqrt(2))


def _wasserstein(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the area between the two distribution functions."""
    first, second = np.sort(first), np.sort(second)
    if len(first) == len(second):
        return float(np.abs(first - second).mean())
    values = np.concatenate([first, second])
    values.sort(kind="stable")
    shares = [np.searchsorted(side, values[:-1], "right") / len(side) for side in (first, second)]
    return float((np.abs(shares[0] - shares[1]) * np.diff(values)).sum())
