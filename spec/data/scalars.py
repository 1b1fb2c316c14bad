"""Scalars of NumPy and pandas as Python's own values, where that loses nothing."""

import sys
from collections.abc import Mapping
from datetime import datetime
from types import NoneType
from typing import Any

__all__ = ["PLAIN", "plain", "plain_items", "plain_output"]

PLAIN = frozenset({float, int, str, bool, NoneType, datetime})
"""The types that stay as they are."""


def plain(value: Any) -> Any:
    """Return the Python value that a scalar of NumPy or pandas stands for; anything else as it is.

    ``numpy.float32`` is the number that it is, pandas' NA and NaT are null, and a ``pandas.Timestamp``
    is its datetime, to the microsecond. NumPy's times, which have no zone, stay as they are, for the
    caller to refuse. Needs neither library: whoever has such a value has imported it.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> plain(np.float64(0.5)), plain(np.int8(3)), plain(np.bool_(True)), plain(pd.NA), plain("x")
    (0.5, 3, True, None, 'x')
    """
    if type(value) in PLAIN:
        return value
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if numpy is not None and isinstance(value, numpy.bool_ | numpy.number | numpy.str_):
        return value.item()
    if pandas is not None:
        if value is pandas.NA or value is pandas.NaT:
            return None
        if isinstance(value, pandas.Timestamp):
            return value.to_pydatetime(warn=False)
    return value


def plain_output(output: Any) -> Any:
    """Return an output with :func:`plain` for its number, or for each chance by class."""
    return dict(plain_items(output)) if isinstance(output, Mapping) else plain(output)


def plain_items(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return values by name with :func:`plain` for each; the same object if that changes nothing."""
    if not isinstance(values, Mapping) or PLAIN.issuperset(map(type, values.values())):
        return values
    return {name: plain(value) for name, value in values.items()}
