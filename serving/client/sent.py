"""Write requests as JSON without changing a value; refuse values that JSON cannot hold."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec

from headwater.spec.data.scalars import plain_items
from headwater.spec.errors import NonFiniteError, SchemaError

__all__ = ["encoded"]

_MANY = ("predictions", "labels")


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
    many = {name: [_plain(item) for item in body[name]] for name in _MANY if name in body}
    try:
        return msgspec.json.encode(_plain(body) | many)
    except (TypeError, UnicodeEncodeError, OverflowError) as error:
        raise SchemaError(
            f"the request cannot be written as JSON: {error}",
            hint="send text, numbers, booleans and None",
        ) from error


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return one prediction or label with Python's own values; refuse numbers that are not finite."""
    plain = dict(plain_items(item))
    for part in ("features", "entity"):
        if isinstance(plain.get(part), Mapping):
            plain[part] = plain_items(plain[part])
            for name, value in plain[part].items():
                _check(value, f"{part}.{name}")
    _check(plain.get("value"), "value")
    return plain


def _check(value: object, field: str) -> None:
    if isinstance(value, float) and not isfinite(value):
        raise NonFiniteError(f"{field}: it is {value}", hint="send None for what is not known")
    if value is not None and not isinstance(value, str | int | float):  # JSON would make text of it
        raise SchemaError(
            f"{field}: it is a {type(value).__name__}", hint="send text, numbers, booleans and None"
        )
