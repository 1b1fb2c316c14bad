"""The timetable of triggers by the clock equals the schedules that Prefect gets."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.spec.errors import DeclarationError
from headwater.spec.updating.timetable import Due, due_times
from headwater.spec.updating.trigger import Trigger
from headwater.spec.updating.triggers.schedule import Cron, Every
from headwater.spec.updating.triggers.volume import Volume

BEGAN = datetime(2024, 3, 1, 8, tzinfo=UTC)  # a Friday
DAY = timedelta(days=1)
MONTH = datetime(2024, 4, 1, tzinfo=UTC)


def due_texts(*triggers: Trigger, start: datetime = BEGAN, stop: datetime = MONTH) -> list[str]:
    return [f"{due.at:%m-%d %H:%M}" for due in due_times(triggers, BEGAN, start, stop)]


@pytest.mark.parametrize(
    ("triggers", "wanted"),
    [
        ((), []),
        ((Volume(10),), []),
        ((Every("7d"),), ["03-08 08:00", "03-15 08:00", "03-22 08:00", "03-29 08:00"]),
        ((Cron("0 0 1 * *"),), []),  # due as the month stops: left to what follows
        ((Every("10d"), Every("15d")), ["03-11 08:00", "03-16 08:00", "03-21 08:00", "03-31 08:00"]),
        ((Cron("0 8 1 * *"),), []),  # the moment at which it began
        ((Cron("30 2 * * mon"),), ["03-04 02:30", "03-11 02:30", "03-18 02:30", "03-25 02:30"]),
        (
            (Cron("0 0 */15 * *"), Every("2w")),
            ["03-15 08:00", "03-16 00:00", "03-29 08:00", "03-31 00:00"],
        ),
        (
            (Cron("0 6 * * sun", "Europe/Berlin"),),  # summer time begins on 31 March
            ["03-03 05:00", "03-10 05:00", "03-17 05:00", "03-24 05:00", "03-31 04:00"],
        ),
        (
            (Cron("0 6 * * sun", "America/New_York"),),  # and on 10 March there
            ["03-03 11:00", "03-10 10:00", "03-17 10:00", "03-24 10:00", "03-31 10:00"],
        ),
    ],
)
def test_triggers_by_the_clock_are_due_through_a_month(
    triggers: tuple[Trigger, ...], wanted: list[str]
) -> None:
    assert due_texts(*triggers) == wanted


def test_a_moment_is_due_once_and_from_scratch_goes_before_fine_tuning() -> None:
    plain, tune = Every("10d"), Cron("0 8 11 3 *", update="stateful")
    scratch = Every("10d", update="stateless")
    first = BEGAN + 10 * DAY
    for triggers, kind in (
        ((plain,), None),
        ((tune,), "stateful"),
        ((plain, tune), None),
        ((scratch, tune, plain), "stateless"),
    ):
        assert next(due_times(triggers, BEGAN, BEGAN, MONTH)) == Due(first, kind)


@given(st.lists(st.integers(0, 30 * 24), max_size=5), st.integers(1, 400))
def test_cutting_a_run_changes_no_due_time(cuts: list[int], hours: int) -> None:
    triggers = (Every(f"{hours}h"), Cron("15 */7 * * *", "Europe/Berlin"))
    whole = list(due_times(triggers, BEGAN, BEGAN, MONTH))
    ends = [BEGAN, *sorted(BEGAN + cut * timedelta(hours=1) for cut in cuts), MONTH]
    parts = [list(due_times(triggers, BEGAN, a, b)) for a, b in pairwise(ends)]
    assert [due for part in parts for due in part] == whole


def test_a_cron_line_without_times_is_refused() -> None:
    with pytest.raises(DeclarationError, match="names no times"):
        next(due_times([Cron("0 0 31 2 *")], BEGAN, BEGAN, MONTH))
