"""Triggers that go by the clock. What is due is decided by Prefect's scheduler."""

import msgspec

from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError

__all__ = ["Cron", "Every", "Trigger"]


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
        if not isinstance(self.line, str) or len(self.line.split()) != 5:
            raise DeclarationError(
                f"Cron({self.line!r}) does not have five fields",
                hint='write Cron("30 2 * * *") for half past two every night',
            )


Trigger = Every | Cron
