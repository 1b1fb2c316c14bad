"""Cut a log into windows, and tell whether a window has enough to judge.

A prediction belongs to a window by its time of receipt, which never falls as positions rise. So a window
is a range of positions, which takes a few look-ups, whatever order the labels come in.
"""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import msgspec

from headwater.features.identity.recorded_by import numbers_between
from headwater.features.read.log_reader import LogReader
from headwater.features.record.declared import recorded_declarations
from headwater.infra.clock import from_us, to_us
from headwater.spec.duration import duration
from headwater.spec.updating.evidence import Standing, Window
from headwater.spec.updating.monitoring import Monitoring

__all__ = ["WindowSpan", "standing", "windows"]

_MOST = 1_000
_FIRST = 1  # of the declarations: that of records of before they had a number
_MICROSECOND = timedelta(microseconds=1)


class WindowSpan(msgspec.Struct, frozen=True):
    """A window of a log: its times, and the positions that are in it.

    Parameters
    ----------
    start, stop
        From `start` up to, but not including, `stop`; UTC.
    first, behind
        Positions from `first` up to, but not including, `behind`.
    mature
        Whether every prediction's wait had passed when it was made.
    """

    start: datetime
    stop: datetime
    first: int
    behind: int
    mature: bool

    def window(self, predictions: int, labelled: int) -> Window:
        """Return the record of it that evidence holds, with these counts."""
        return Window(
            start=self.start,
            stop=self.stop,
            predictions=predictions,
            labelled=labelled,
            mature=self.mature,
        )


def windows(
    log: LogReader,
    monitoring: Monitoring,
    since: datetime,
    now: datetime,
    wait: timedelta,
    *,
    last: int | None = None,
    aligned: bool = True,
) -> list[WindowSpan]:
    """List the whole windows from a time on that are over, oldest first.

    Records that wait in the inbox are in none of them: collect first.

    Parameters
    ----------
    log
        Whose predictions; all of them, whichever version made them.
    monitoring
        How long a window is, or how many predictions make one.
    since
        Where to begin: windows by time at the first whole multiple from there on, windows by amount
        at the first prediction from there on.
    now
        The present: a window that is not over is left out.
    wait
        How long labels may take as declared now; a window is mature once its last prediction's wait has
        passed, and the longer one of an earlier declaration that a prediction in it was recorded under.
    last
        Only the newest so many; never more than a thousand.
    aligned
        Whether windows by time begin at whole multiples of their length since 1970, UTC; the first one
        begins at `since` otherwise, so that none of what came then is lost.
    """
    most = _MOST if last is None else min(max(last, 0), _MOST)
    if monitoring.span is None:
        return _by_amount(log, monitoring.rows or _MOST, since, now, wait, most)
    edges = _edges(log, duration(monitoring.span, "window"), since, now, most, aligned=aligned)
    pairs, waits = (
        zip(pairwise(edges), pairwise(_places(log, edges)), strict=True),
        _Waits(log, wait, now),
    )
    return [WindowSpan(*times, *places, waits.have_passed(times[1], *places)) for times, places in pairs]


def standing(window: Window, least: int) -> Standing:
    """Tell whether a window has enough to judge, by its labels if it is mature.

    Parameters
    ----------
    window
        With what was counted in it.
    least
        Fewer predictions or labels than this are too little.

    Examples
    --------
    >>> from datetime import UTC
    >>> day = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
    >>> standing(WindowSpan(*day, 0, 900, mature=True).window(predictions=900, labelled=0), least=200)
    'starved'
    """
    if window.predictions < least:
        return "insufficient_data"
    if window.mature and window.labelled == 0:
        return "starved"
    if window.mature and window.labelled < least:
        return "insufficient_data"
    return "enough"


class _Waits:
    """Tells of windows whether the waits of all their predictions have passed."""

    def __init__(self, log: LogReader, wait: timedelta, now: datetime) -> None:
        self._log, self._wait, self._now = log, wait, now
        with log.database.reading() as connection:
            declared = recorded_declarations(connection, log.pipeline_id)
        self._waits = {number: duration(one.label.wait) for number, one in declared.items()}
        self._longest = max((wait, *self._waits.values()))

    def have_passed(self, stop: datetime, first: int, behind: int) -> bool:
        if stop + self._wait > self._now or stop + self._longest <= self._now:
            return stop + self._wait <= self._now
        with self._log.database.reading() as connection:
            numbers = numbers_between(connection, self._log.pipeline_id, first, behind)
        waits = [self._waits.get(number or _FIRST, self._wait) for number in numbers]
        return all(stop + wait <= self._now for wait in waits)


def _edges(
    log: LogReader, length: timedelta, since: datetime, now: datetime, most: int, *, aligned: bool
) -> list[datetime]:
    """List the edges of the newest windows by time; none is before the first record."""
    oldest = log.recorded_at(0)
    if oldest is None or most == 0:
        return []
    length_us = length // _MICROSECOND
    origin_us = 0 if aligned else to_us(since)
    begin = max(-((origin_us - to_us(since)) // length_us), (to_us(oldest) - origin_us) // length_us)
    end = (to_us(now) - origin_us) // length_us
    return [from_us(origin_us + i * length_us) for i in range(max(begin, end - most), end + 1)]


def _places(log: LogReader, edges: Sequence[datetime]) -> list[int]:
    """Look up the position of each edge, by bisection between those of its neighbours."""
    if len(edges) < 2:
        return [log.position_at(edge) for edge in edges]
    return _between(log, edges, log.position_at(edges[0]), log.position_at(edges[-1]))


def _between(log: LogReader, edges: Sequence[datetime], first: int, last: int) -> list[int]:
    if first == last or len(edges) == 2:
        return [first] * (len(edges) - 1) + [last]
    half = len(edges) // 2

    def behind(position: int) -> bool:
        moment = log.recorded_at(position)
        return moment is None or moment >= edges[half]

    middle = bisect_left(range(last), True, lo=first, key=behind)
    earlier = _between(log, edges[: half + 1], first, middle)
    return earlier[:-1] + _between(log, edges[half:], middle, last)


def _by_amount(
    log: LogReader, rows: int, since: datetime, now: datetime, wait: timedelta, most: int
) -> list[WindowSpan]:
    start, end = log.position_at(since), log.position_at(now + _MICROSECOND)
    whole = log.repository.count(start, end) // rows
    skipped = max(whole - most, 0)
    place = log.position_after(start, rows * skipped) if skipped else start
    spans, waits = list[WindowSpan](), _Waits(log, wait, now)
    for _ in range(whole - skipped):
        behind = None if place is None else log.position_after(place, rows)
        if place is None or behind is None:
            break
        begin, newest = log.recorded_at(place), log.recorded_at(behind - 1)
        if begin is None or newest is None:
            break
        stop = newest + _MICROSECOND
        spans.append(WindowSpan(begin, stop, place, behind, waits.have_passed(stop, place, behind)))
        place = behind
    return spans
