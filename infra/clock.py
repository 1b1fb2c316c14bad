"""Clocks: the one place that reads the time, so that a replay is a simulation."""

import math
import os
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import clock_gettime
from typing import Protocol

import msgspec

from headwater.spec.data.records import utc
from headwater.spec.errors import ClockError, HeadwaterError

__all__ = ["Clock", "ReceiptClock", "SimulatedClock", "SystemClock", "from_us", "to_us"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
_SECOND_US = 1_000_000
_TOLERANCE_US = 60 * _SECOND_US
_NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)  # this was written then: an earlier clock is behind
_RUNNING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


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


class _Reference(msgspec.Struct, frozen=True):
    """The clock's time less the time since the machine was started, for one start."""

    boot: str
    offset_us: int


class ReceiptClock:
    """A clock for times of receipt, which refuses to give one that is further on than it can be.

    A time that is too far ahead moves deadlines and windows, and nothing can move them back. The
    machine's clock is held against the time since the machine was started, which nobody sets and which
    counts on while the machine sleeps. The first process after a start of the machine writes down how
    both relate; how long the machine was off before, nothing can tell.

    A clock that is behind the last entry, or before 2026, is known to be behind: it may come forward.
    Its times are taken, and count as the last entry's.

    Parameters
    ----------
    clock
        Gives the time. One that is not the machine's is not checked.
    folder
        Where the reference is written, as ``clock.json``; None writes none.
    newest_us
        Time of receipt of the newest entry, in microseconds.
    """

    def __init__(self, clock: Clock, folder: Path | None, newest_us: int = 0) -> None:
        self._clock = clock
        self._checks = isinstance(clock, SystemClock)
        self._floor_us = max(newest_us, to_us(_NOT_BEFORE))
        self._offset_us: int | None = None
        self._limit_s = -math.inf if self._checks else math.inf
        self._file = None if folder is None else folder / "clock.json"
        if self._checks:
            self._begin()

    def now(self) -> datetime:
        """Return the present.

        Raises
        ------
        ClockError
            If the clock is ahead of what it can be.
        """
        now = self._clock.now()
        if now.timestamp() - clock_gettime(_RUNNING) > self._limit_s:
            self._check(to_us(now))
        return now

    def fault(self) -> ClockError | None:
        """Return why :meth:`now` refuses, or that the clock is behind the last entry."""
        now = self._clock.now()
        if not self._checks:
            return None
        try:
            self._check(to_us(now))
        except ClockError as error:
            return error
        behind_us = self._floor_us - to_us(now)
        if behind_us <= _TOLERANCE_US:
            return None
        return ClockError(
            f"the machine's clock says {now:%Y-%m-%d %H:%M} UTC, which is behind the records: they are "
            f"kept, and count as received at {from_us(self._floor_us):%Y-%m-%d %H:%M} UTC",
            hint="set the clock: timedatectl",
        )

    def _begin(self) -> None:
        now_us = to_us(self._clock.now())
        if now_us < self._floor_us:
            return
        known = self._read()
        if known is not None and known.boot == _boot():
            self._keep(known.offset_us)
        else:
            self._trust(now_us)

    def _check(self, now_us: int) -> None:
        if self._offset_us is None:
            if now_us >= self._floor_us:
                self._trust(now_us)
            return
        ahead_us = now_us - self._offset_us - _running_us()
        if ahead_us > _TOLERANCE_US:
            ahead = timedelta(seconds=ahead_us // _SECOND_US)
            raise ClockError(
                f"the machine's clock says {from_us(now_us):%Y-%m-%d %H:%M} UTC, {ahead} further on "
                "than the time that has passed: nothing is recorded by it",
                hint="set the clock: timedatectl; if it is right, and the machine was halted meanwhile, "
                f"remove {self._file} and start again",
            )

    def _trust(self, now_us: int) -> None:
        offset_us = now_us - _running_us()
        self._keep(offset_us)
        if self._file is None:
            return
        draft = self._file.with_name(f"{self._file.name}.{os.getpid()}.new")
        with suppress(OSError):  # a disk that refuses is told by whoever records
            draft.write_bytes(msgspec.json.encode(_Reference(_boot(), offset_us)))
            draft.replace(self._file)

    def _keep(self, offset_us: int) -> None:
        """Keep the offset, and the limit that is compared at every call: each prediction makes one."""
        self._offset_us = offset_us
        self._limit_s = (offset_us + _TOLERANCE_US) / _SECOND_US

    def _read(self) -> _Reference | None:
        if self._file is None:
            return None
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_Reference)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None


def _running_us() -> int:
    """Return the microseconds since the machine was started, sleep included."""
    return round(clock_gettime(_RUNNING) * _SECOND_US)


def _boot() -> str:
    """Return the name of this start of the machine; empty where the system has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
