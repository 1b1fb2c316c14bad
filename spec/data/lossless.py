"""Values that stand for one of a declared type without loss: one rule for what comes one by one.

Columns are fitted by the same rule (:mod:`headwater.features.values.column_values`).
"""

from decimal import Decimal
from typing import Any

from headwater.spec.data.feature import Dtype
from headwater.spec.data.scalars import plain

__all__ = ["EXACT", "fitted", "is_rounded"]

EXACT = 2**53
"""Up to here, either way, a float holds each whole number; from here on, it may stand for others."""


def fitted(value: Any, dtype: Dtype) -> Any:
    """Return the value of a declared type that a value stands for; itself where it stands for none.

    A whole number is a float up to :data:`EXACT`, and a whole float an int below it; 1 and 0 are
    booleans; a decimal is the number of its digits; scalars of NumPy and pandas are what :func:`plain`
    says.

    Examples
    --------
    >>> fitted(3, "float"), fitted(3.0, "int"), fitted(1, "bool"), fitted(3.7, "int"), fitted(2, "bool")
    (3.0, 3, True, 3.7, 2)
    """
    value = plain(value)
    if isinstance(value, Decimal):
        value = _number(value, dtype)
    kind = type(value)
    if dtype == "bool" and kind in (int, float):
        return bool(value) if value in (0, 1) else value
    if dtype == "int" and kind is float:
        return int(value) if value.is_integer() and abs(value) < EXACT else value
    if dtype == "float" and kind is int:
        return float(value) if abs(value) <= EXACT else value
    return value


def is_rounded(value: Any, dtype: Dtype) -> bool:
    """Return whether a whole number would be rounded as a float.

    >>> is_rounded(2**53 + 1, "float"), is_rounded(2**53, "float"), is_rounded(2**53 + 1, "int")
    (True, False, False)
    """
    if dtype != "float" or isinstance(value, float):
        return False
    value = fitted(value, dtype)
    return type(value) is int and abs(value) > EXACT


def _number(value: Decimal, dtype: Dtype) -> Any:
    if not value.is_finite():
        return float(value)
    if value == value.to_integral_value():
        return int(value)
    return float(value) if dtype == "float" else value
