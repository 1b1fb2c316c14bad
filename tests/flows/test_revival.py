"""A process of the stack that ends is started again: later each time, and not for ever."""

import os
import sys

import pytest
from tests.patience import await_

from headwater.flows.stack.supervision import Supervision
from headwater.infra.processes import Child
from headwater.spec.errors import ServerError


def _child(tmp_path, code):
    return Child("toy server", [sys.executable, "-c", code], os.environ, tmp_path / "toy.log")


def _await_end(child):
    await_(lambda: child.status is not None)


def _timetable(tmp_path, seconds_between_ends):
    """Return the delay before each start, of a process that ends at once."""
    child = _child(tmp_path, "print('bad port'); raise SystemExit(3)")
    supervision, now, delays = Supervision(child), 0.0, []
    for between in seconds_between_ends:
        _await_end(child)
        assert "toy server ended with status 3" in str(supervision.check(now))
        messages = (str(supervision.check(now + second)) for second in range(60))
        delay = next(s for s, message in enumerate(messages) if message.startswith("toy server runs"))
        delays.append(delay)
        now += between
    return supervision, child, now, delays


def test_a_running_process_is_left_alone(tmp_path):
    child = _child(tmp_path, "import time; time.sleep(600)")
    before = child.pid
    try:
        assert [Supervision(child).check(second) for second in range(3)] == [None] * 3
        assert child.pid == before
    finally:
        child.end()


def test_a_process_starts_later_each_time_and_in_the_end_no_more(tmp_path):
    supervision, child, now, delays = _timetable(tmp_path, [30] * 5)
    assert delays == [1, 2, 4, 8, 16]
    _await_end(child)
    with pytest.raises(ServerError, match="toy server ended with status 3") as raised:
        supervision.check(now)
    assert "bad port" in raised.value.what


def test_ends_more_than_ten_minutes_ago_do_not_count(tmp_path):
    _, child, _, delays = _timetable(tmp_path, [300] * 7)
    assert delays == [1, 2, 2, 2, 2, 2, 2]
    _await_end(child)
