"""A clock that cannot be right is refused at the door, and moves nothing; each case has an outcome."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headwater.infra import clock as clock_module
from headwater.infra.clock import ReceiptClock, SimulatedClock, SystemClock, to_us
from headwater.spec.errors import ClockError

NOW = datetime(2026, 11, 28, tzinfo=UTC)
YEAR, HOUR = timedelta(days=365), timedelta(hours=1)


class Machine:
    """A machine whose clock can be set, and whose time since its start cannot."""

    def __init__(self) -> None:
        self.now = NOW
        self.running = timedelta(days=3)
        self.boot = "first"

    def pass_by(self, time: timedelta) -> None:
        self.now += time
        self.running += time

    def start_again(self, off: timedelta) -> None:
        self.now += off
        self.running, self.boot = timedelta(minutes=1), "second"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(SystemClock, "now", lambda _: machine.now)
    monkeypatch.setattr(clock_module, "clock_gettime", lambda _: machine.running.total_seconds())
    monkeypatch.setattr(clock_module, "_boot", lambda: machine.boot)
    return machine


def opened(folder: Path, newest: datetime | None = None) -> ReceiptClock:
    return ReceiptClock(SystemClock(), folder, 0 if newest is None else to_us(newest))


def test_time_that_passes_is_given(machine: Machine, tmp_path: Path) -> None:
    receipts = opened(tmp_path)
    machine.pass_by(YEAR)  # asleep, say: the time since the start counts on
    assert receipts.now() == machine.now
    assert receipts.fault() is None


def test_a_clock_a_year_ahead_is_refused_until_it_is_set_right(machine: Machine, tmp_path: Path) -> None:
    receipts = opened(tmp_path)
    machine.now += YEAR
    with pytest.raises(ClockError, match="365 days, 0:00:00 further on than the time that has passed"):
        receipts.now()
    assert isinstance(receipts.fault(), ClockError)
    machine.now -= YEAR
    assert receipts.now() == NOW
    assert receipts.fault() is None


@pytest.mark.parametrize("step", [timedelta(seconds=30), -timedelta(seconds=30)])
def test_a_step_of_time_servers_is_taken(machine: Machine, tmp_path: Path, step: timedelta) -> None:
    receipts = opened(tmp_path)
    machine.now += step
    assert receipts.now() == machine.now


def test_many_small_steps_do_not_add_up(machine: Machine, tmp_path: Path) -> None:
    receipts = opened(tmp_path)
    for _ in range(2):
        machine.now += timedelta(seconds=30)
        receipts.now()
    machine.now += timedelta(seconds=30)
    with pytest.raises(ClockError):
        receipts.now()


def test_a_process_that_begins_while_the_clock_is_ahead_refuses_it(
    machine: Machine, tmp_path: Path
) -> None:
    opened(tmp_path)
    machine.now += YEAR
    again = opened(tmp_path)
    with pytest.raises(ClockError, match=str(tmp_path)):
        again.now()


def test_after_a_start_of_the_machine_nothing_tells_how_long_it_was_off(
    machine: Machine, tmp_path: Path
) -> None:
    opened(tmp_path)
    machine.start_again(YEAR)
    again = opened(tmp_path, NOW)
    assert again.now() == NOW + YEAR
    machine.now += HOUR
    with pytest.raises(ClockError):
        again.now()


@pytest.mark.parametrize("then", [NOW - YEAR, datetime(1969, 12, 31, tzinfo=UTC)], ids=["back", "1969"])
def test_a_clock_that_is_behind_is_taken_said_and_may_come_forward(
    machine: Machine, tmp_path: Path, then: datetime
) -> None:
    machine.now = then
    receipts = opened(tmp_path, NOW)
    assert receipts.now() == then
    fault = receipts.fault()
    assert fault is not None
    assert "behind the records" in fault.what
    machine.now = NOW + HOUR
    assert receipts.now() == NOW + HOUR
    assert receipts.fault() is None
    machine.now += YEAR
    with pytest.raises(ClockError):
        receipts.now()


def test_a_clock_that_went_back_may_come_back(machine: Machine, tmp_path: Path) -> None:
    receipts = opened(tmp_path)
    machine.now -= YEAR
    assert receipts.now() == machine.now
    machine.now += YEAR
    assert receipts.now() == NOW


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_text("{"), lambda path: path.unlink()], ids=["cut", "lost"]
)
def test_a_reference_that_is_lost_is_made_anew(
    machine: Machine, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    opened(tmp_path)
    spoil(tmp_path / "clock.json")
    machine.now += HOUR
    assert opened(tmp_path).now() == machine.now


def test_a_clock_that_is_not_the_machine_s_is_not_checked(machine: Machine, tmp_path: Path) -> None:
    simulated = SimulatedClock(NOW)
    receipts = ReceiptClock(simulated, tmp_path)
    simulated.advance_to(NOW + YEAR)
    assert receipts.now() == NOW + YEAR
    assert not (tmp_path / "clock.json").exists()
