from datetime import UTC, datetime, timedelta, timezone

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headwater.infra.clock import SimulatedClock, SystemClock, from_us, to_us
from headwater.spec.errors import HeadwaterError

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
EAST = timezone(timedelta(hours=5))
MICROSECOND = timedelta(microseconds=1)

moments = st.datetimes(
    datetime(1900, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, EAST, timezone(timedelta(hours=-11))]),
)


@given(wanted=st.lists(moments, max_size=8))
def test_a_simulated_clock_never_goes_back(wanted: list[datetime]) -> None:
    clock = SimulatedClock(NOON)
    newest = NOON
    for moment in wanted:
        if moment < newest:
            with pytest.raises(HeadwaterError, match="cannot go back"):
                clock.advance_to(moment)
        else:
            clock.advance_to(moment)
            newest = moment
        assert clock.now() == newest


def test_a_simulated_clock_stands_still_and_may_be_moved_to_its_present() -> None:
    clock = SimulatedClock(NOON)
    clock.advance_to(NOON)
    assert clock.now() == clock.now() == NOON


def test_a_simulated_clock_refuses_a_microsecond_back() -> None:
    clock = SimulatedClock(NOON)
    with pytest.raises(HeadwaterError, match=r"12:00:00\+00:00 cannot go back to .*11:59:59\.999999"):
        clock.advance_to(NOON - MICROSECOND)


def test_every_clock_tells_utc() -> None:
    simulated = SimulatedClock(NOON.astimezone(EAST))
    simulated.advance_to(NOON.astimezone(EAST))
    for clock in (simulated, SystemClock()):
        assert clock.now().tzinfo is UTC


@given(moment=moments)
def test_a_time_round_trips_through_microseconds(moment: datetime) -> None:
    assert from_us(to_us(moment)) == moment
    assert from_us(to_us(moment)).tzinfo is UTC


@given(moment=moments)
def test_to_us_counts_single_microseconds(moment: datetime) -> None:
    assert to_us(moment + MICROSECOND) == to_us(moment) + 1
