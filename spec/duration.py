"""Durations as people write them: ``"90d"``, ``"36h"``, ``"15m"``, ``"30s"``."""

import re
from datetime import timedelta

from headwater.spec.errors import DeclarationError

__all__ = ["Duration", "duration"]

_HINT = "write a whole number and a unit, such as '90d', '36h', '15m', '30s' or '2w'"

Duration = str
"""A whole number and one of ``s m h d w``, such as ``"90d"``."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_LONGEST_S = 36_525 * 86_400
_FORM = re.compile(r"([1-9][0-9]{0,8})([smhdw])")


def duration(text: Duration, field: str = "duration") -> timedelta:
    """Read a duration.

    Parameters
    ----------
    text
        A whole number and one of ``s m h d w``.
    field
        What the duration is for, to name in the error.

    Raises
    ------
    DeclarationError
        If `text` is anything else.

    Examples
    --------
    >>> duration("90d")
    datetime.timedelta(days=90)
    """
    form = _FORM.fullmatch(text) if isinstance(text, str) else None
    if form is None:
        raise DeclarationError(f"{field}={text!r} is not a duration", hint=_HINT)
    if int(form[1]) * _SECONDS[form[2]] > _LONGEST_S:
        raise DeclarationError(f"{field}={text!r} is over a hundred years", hint=_HINT)
    return timedelta(**{_UNITS[form[2]]: int(form[1])})
