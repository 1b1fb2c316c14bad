"""The timetable of triggers by the clock: the moments at which a scheduler would start an update."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import groupby
from typing import NamedTuple
from zoneinfo import ZoneInfo

from headwater.spec.duration import duration
from headwater.spec.errors import DeclarationError
from headwater.spec.updating.trigger import Trigger
from headwater.spec.updating.triggers.schedule import Cron, Every
from headwater.spec.updating.update import UpdateKind

__all__ = ["Due", "due_times"]

_MINUTE = timedelta(minutes=1)


class Due(NamedTuple):
    """A moment at which an update is due.

    Parameters
    ----------
    at
        When, in UTC.
    update
        The kind of update that a trigger asks for, from scratch before fine-tuning; None leaves it to
        the pipeline.
    """

    at: datetime
    update: UpdateKind | None


def due_times(
    triggers: Sequence[Trigger], since: datetime, start: datetime, stop: datetime
) -> Iterator[Due]:
    """Yield the moments at which triggers are due, in order. Pure.

    Parameters
    ----------
    triggers
        Those that do not go by the clock are passed over.
    since
        Where :class:`Every` counts from. Nothing is due at this moment itself.
    start, stop
        From `start` up to, but not including, `stop`.

    Yields
    ------
    Due
        Once a moment, however many triggers are due at it.

    Raises
    ------
    DeclarationError
        If a cron line names no times.

    Examples
    --------
    >>> begin = datetime(2024, 1, 1, 8, tzinfo=UTC)
    >>> weekly = due_times([Every("7d")], begin, begin, datetime(2024, 1, 20, tzinfo=UTC))
    >>> [f"{due.at:%d %H:%M}" for due in weekly]
    ['08 08:00', '15 08:00']
    """
    tables = [_times(one, since, start, stop) for one in triggers if isinstance(one, Every | Cron)]
    for at, due in groupby(merge(*tables, key=lambda one: one.at), key=lambda one: one.at):
        kinds = {one.update for one in due}
        scratch = "stateless" in kinds
        yield Due(at, "stateless" if scratch else "stateful" if kinds == {"stateful"} else None)


def _times(trigger: Every | Cron, since: datetime, start: datetime, stop: datetime) -> Iterator[Due]:
    times = _every(trigger, since, start) if isinstance(trigger, Every) else _cron(trigger, start)
    for at in times:
        if at >= stop:
            return
        if at > since:
            yield Due(at, trigger.update)


def _every(trigger: Every, since: datetime, start: datetime) -> Iterator[datetime]:
    interval = duration(trigger.interval)
    at = since + max(1, -((since - start) // interval)) * interval
    while True:
        yield at
        at += interval


def _cron(trigger: Cron, start: datetime) -> Iterator[datetime]:
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - most triggers need it not

    before = (start - _MINUTE).astimezone(ZoneInfo(trigger.timezone))  # it gives what comes after
    try:
        times = CronSim(trigger.line, before)
        moment = next(times, None)
    except CronSimError:
        moment = None
    if moment is None:
        raise DeclarationError(
            f"Cron({trigger.line!r}, {trigger.timezone!r}) names no times",
            hint='write Cron("30 2 * * *", "Europe/Berlin"), say',
        )
    while moment is not None:
        if (at := moment.astimezone(UTC)) >= start:
            yield at
        moment = next(times, None)
