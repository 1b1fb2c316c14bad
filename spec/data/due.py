"""When the truth of a prediction is due, as a label rule's `due` names it. Pure."""

from datetime import UTC, datetime, timedelta
from math import isfinite

from headwater.spec.data.records import FeatureValue

__all__ = ["due_between", "misfit_of_due", "moment_us"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def moment_us(value: FeatureValue | datetime) -> int | None:
    """Return the time that a value names, in microseconds since 1970, UTC; None if it names none.

    >>> moment_us("1970-01-01T01:00:01+01:00"), moment_us(1.5), moment_us("tomorrow")
    (1000000, 1500000, None)
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):  # the difference is exact, and needs no year of UTC
        return None if value.utcoffset() is None else (value - _EPOCH) // _MICROSECOND
    if value is None or isinstance(value, bool) or not isfinite(value):
        return None
    return round(value * 1_000_000)


def misfit_of_due(value: FeatureValue) -> str | None:
    """Return why a value cannot say when a truth is due; None if it can, or is null.

    >>> misfit_of_due("2026-11-28T12:00"), misfit_of_due("2026-11-28T12:00Z")
    ('is no ISO time with a zone', None)
    """
    if value is None or moment_us(value) is not None:
        return None
    return "is no ISO time with a zone" if isinstance(value, str) else "is no finite number of seconds"


def due_between(named_us: int | None, received_us: int, most_us: int) -> int:
    """Return when a truth is due: the named time, from receipt to `most` after it.

    >>> due_between(3, 5, 10), due_between(7, 5, 10), due_between(99, 5, 10), due_between(None, 5, 10)
    (5, 7, 15, 15)
    """
    latest_us = received_us + most_us
    return latest_us if named_us is None else min(max(named_us, received_us), latest_us)
