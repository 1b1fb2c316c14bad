"""Write requests as JSON without changing a value; refuse values that JSON cannot hold."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec

from headwater.spec.errors import NonFiniteError, SchemaError

__all__ = ["encoded"]


def encoded(body: Mapping[str, Any]) -> bytes:
    """Write a request's body.

    Parameters
    ----------
    body
        A prediction or a label, or many in ``predictions`` or ``labels``.

    Raises
    ------
    NonFiniteError
        If a feature or a label is NaN or infinite, which JSON would make a null.
    SchemaError
        If a value cannot be written.

    Examples
    --------
    >>> encoded({"features": {"x": float("nan")}})
    Traceback (most recent call last):
    headwater.spec.errors.NonFiniteError: features.x: it is nan. Next: send None for what is not known.
    """
    for item in (body, *body.get("predictions", ()), *body.get("labels", ())):
        features = item.get("features")
        if isinstance(features, Mapping):
            for name, number in features.items():
                _check(number, f"features.{name}")
        _check(item.get("value"), "value")
    try:
        return msgspec.json.encode(body)
    except (TypeError, UnicodeEncodeError, OverflowError) as error:
        raise SchemaError(
            f"the request cannot be written as JSON: {error}",
            hint="send text, numbers, booleans and None",
        ) from error


def _check(value: object, field: str) -> None:
    if isinstance(value, float) and not isfinite(value):
        raise NonFiniteError(f"{field}: it is {value}", hint="send None for what is not known")
