"""Clocks: the one place that reads the time, so that a replay is a simulation."""

from datetime import UTC, datetime, timedelta
from typing import Protocol

from headwater.spec.data.records import utc
from headwater.spec.errors import HeadwaterError

__all__ = ["Clock", "SimulatedClock", "SystemClock", "from_us", "to_us"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
_SECOND_US = 1_000_000


def to_us(moment: datetime) -> int:
    """Convert an aware time to whole microseconds since 1970, UTC, as every store keeps it.

    >>> to_us(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    since = moment - _EPOCH
    return since.days * _DAY_US + since.seconds * _SECOND_US + since.microseconds


def from_us(moment_us: int) -> datetime:
    """Convert microseconds since 1970 to a time in UTC."""
    return _EPOCH + timedelta(microseconds=moment_us)


class Clock(Protocol):
    """A source of the present time, in UTC."""

    def now(self) -> datetime:
        """Return the present, with a zone."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the machine's time, in UTC."""
        return datetime.now(UTC)


class SimulatedClock:
    """A clock that its owner moves, forwards only.

    Parameters
    ----------
    start
        The first present, with a zone.
    """

    def __init__(self, start: datetime) -> None:
        self._now = utc(start, "start")

    def now(self) -> datetime:
        """Return the simulated present, in UTC."""
        return self._now

    def advance_to(self, moment: datetime) -> None:
        """Move to `moment`.

        Raises
        ------
        HeadwaterError
            If `moment` has passed.
        """
        if moment < self._now:
            raise HeadwaterError(
                f"a clock at {self._now.isoformat()} cannot go back to {moment.isoformat()}",
                hint="give events in the order of their times",
            )
        self._now = utc(moment, "moment")
