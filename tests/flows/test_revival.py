"""A process of the stack that ends is started again: later each time, and not for ever."""

import os
import sys
import time

import pytest

from headwater.flows.stack.supervision import Supervision
from headwater.infra.processes import Child
from headwater.spec.errors import ServerError


def _child(tmp_path, code):
    return Child("toy server", [sys.executable, "-c", code], os.environ, tmp_path / "toy.log")


def _await_end(child):
    while child.status is None:
        time.sleep(0.01)


def _timetable(tmp_path, seconds_between_ends):
    """Give how long it was left alone after each of its ends."""
    child = _child(tmp_path, "print('bad port'); raise SystemExit(3)")
    revival, now, delays = Supervision(child), 0.0, []
    for between in seconds_between_ends:
        _await_end(child)
        assert "toy server ended with status 3" in str(revival.look(now))
        delay = next(s for s in range(60) if str(revival.look(now + s)).startswith("toy server runs"))
        delays.append(delay)
        now += between
    return revival, child, now, delays


def test_what_runs_is_left_alone(tmp_path):
    child = _child(tmp_path, "import time; time.sleep(600)")
    before = child.pid
    try:
        assert [Supervision(child).look(second) for second in range(3)] == [None] * 3
        assert child.pid == before
    finally:
        child.end()


def test_it_starts_later_each_time_and_in_the_end_no_more(tmp_path):
    revival, child, now, delays = _timetable(tmp_path, [30] * 5)
    assert delays == [1, 2, 4, 8, 16]
    _await_end(child)
    with pytest.raises(ServerError, match="toy server ended with status 3") as raised:
        revival.look(now)
    assert "bad port" in raised.value.what


def test_what_is_ten_minutes_past_is_forgotten(tmp_path):
    _, child, _, delays = _timetable(tmp_path, [300] * 7)
    assert delays == [1, 2, 2, 2, 2, 2, 2]
    _await_end(child)
