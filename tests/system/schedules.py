"""When a test's deployments run by themselves: not while it lasts."""

from datetime import UTC, datetime, timedelta

__all__ = ["ANCHOR", "unhurried"]

ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)
"""Intervals of deployments are counted from here; a collect's from half an interval later."""

_FAR_OFF = timedelta(days=1)


def unhurried() -> str:
    """Give an interval at which nothing that is deployed with it falls due within a day.

    A scheduled run holds its deployment's slot, collects, decides and updates: a test that meets one
    finds the slot taken, its examples learned and its decision made.
    """
    since = datetime.now(UTC) - ANCHOR

    def to_next(interval: timedelta, late: timedelta) -> timedelta:
        return interval - (since - late) % interval

    return next(
        f"{days}d"
        for days in range(60, 100, 2)  # Prefect makes runs for the next hundred days
        if min(to_next(timedelta(days=days), timedelta(days=late)) for late in (0, days // 2)) > _FAR_OFF
    )
