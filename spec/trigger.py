"""Triggers that go by the clock. What is due is decided by Prefect's scheduler."""

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError

__all__ = ["Cron", "Every", "Trigger"]

_WORDS = "sun|mon|tue|wed|thu|fri|sat|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_FIELD = re.compile(rf"([0-9*/,\-]|{_WORDS})+", re.IGNORECASE)


class Every(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="every"):
    """Update at a fixed interval.

    Parameters
    ----------
    interval
        Time between two updates.
    """

    interval: Duration

    def __post_init__(self) -> None:
        duration(self.interval, "Every")


class Cron(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="cron"):
    """Update at the times that a cron line names.

    Parameters
    ----------
    line
        Five fields: minute, hour, day of month, month, day of week.
    timezone
        IANA name of the zone in which the line is read.
    """

    line: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        fields = self.line.split() if isinstance(self.line, str) else []
        if len(fields) != 5 or not all(map(_FIELD.fullmatch, fields)):
            raise DeclarationError(
                f"Cron({self.line!r}) does not have five fields",
                hint='write Cron("30 2 * * *") for half past two every night',
            )
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, TypeError) as error:
            raise DeclarationError(
                f"timezone={self.timezone!r} is no zone", hint='write timezone="Europe/Berlin", say'
            ) from error


Trigger = Every | Cron
