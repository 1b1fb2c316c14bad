import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import insert, select

from headwater.infra.clock import SimulatedClock
from headwater.infra.store.database import Database
from headwater.infra.store.lease import Lease, acquire, check, holding, is_held, keep, release, renew
from headwater.infra.store.schema import tables
from headwater.spec.errors import BusyError, FencedError

NAME = "sequence/toy"

_OTHER = """
import sys
from datetime import datetime
from headwater.infra.clock import SimulatedClock
from headwater.infra.store.database import Database
from headwater.infra.store.lease import acquire
from headwater.spec.errors import BusyError
database = Database(sys.argv[1])
clock = SimulatedClock(datetime.fromisoformat(sys.argv[2]))
try:
    lease = acquire(database, clock, sys.argv[3], take_over=sys.argv[4] == "take over")
except BusyError as error:
    print("busy", error, flush=True)
else:
    print("holds", lease.epoch, flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(
    database: Database, clock: SimulatedClock, how: str = "wait"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real process that asks for the lease, says what came of it, and lives on."""
    command = [sys.executable, "-c", _OTHER, database.url, clock.now().isoformat(), NAME, how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def hold(database: Database, lease: Lease) -> None:
    with database.transaction() as connection:
        check(connection, lease)


def test_a_second_process_is_refused_while_this_one_lives(
    database: Database, clock: SimulatedClock
) -> None:
    mine = acquire(database, clock, NAME)
    with another_process(database, clock) as (_, report):
        assert report.startswith(f"busy '{NAME}' is held by ")
    hold(database, mine)


def test_this_process_is_refused_while_the_other_lives_and_not_when_it_was_killed(
    database: Database, clock: SimulatedClock
) -> None:
    with another_process(database, clock) as (process, report):
        assert report == "holds 1"
        with pytest.raises(BusyError, match=f"/{process.pid}/") as refused:
            acquire(database, clock, NAME)
        assert "end that process" in refused.value.hint
        process.kill()
        process.wait()
        assert acquire(database, clock, NAME).epoch == 2


def test_a_take_over_fences_the_older(database: Database, clock: SimulatedClock) -> None:
    mine = acquire(database, clock, NAME)
    with another_process(database, clock, "take over") as (_, report):
        assert report == "holds 2"
        with pytest.raises(FencedError, match="epoch 2 holds it, this process has 1"):
            hold(database, mine)
        again = acquire(database, clock, NAME, take_over=True)
        assert again.epoch == 3
        hold(database, again)


def test_a_lease_whose_term_passed_may_be_acquired(database: Database, clock: SimulatedClock) -> None:
    with another_process(database, clock) as (_, report):
        assert report == "holds 1"
        clock.advance_to(clock.now() + timedelta(days=1))
        assert acquire(database, clock, NAME).epoch == 2


def test_a_term_that_is_renewed_begins_anew_under_its_epoch(
    database: Database, clock: SimulatedClock
) -> None:
    mine = acquire(database, clock, NAME)
    clock.advance_to(clock.now() + timedelta(minutes=9))
    renew(database, clock, mine)
    clock.advance_to(clock.now() + timedelta(minutes=9))
    with another_process(database, clock) as (_, report):
        assert report.startswith("busy")
    hold(database, mine)
    acquire(database, clock, NAME, take_over=True)
    with pytest.raises(FencedError):
        renew(database, clock, mine)


def test_a_released_lease_is_free(database: Database, clock: SimulatedClock) -> None:
    release(database, acquire(database, clock, NAME))
    with another_process(database, clock) as (_, report):
        assert report == "holds 2"


def test_a_fenced_holder_releases_nothing(database: Database, clock: SimulatedClock) -> None:
    old = acquire(database, clock, NAME)
    new = acquire(database, clock, NAME)
    release(database, old)
    hold(database, new)
    with another_process(database, clock) as (_, report):
        assert report.startswith("busy")


def test_a_fenced_transaction_keeps_nothing(database: Database, clock: SimulatedClock) -> None:
    old = acquire(database, clock, NAME)
    acquire(database, clock, NAME)

    def write() -> None:
        with database.transaction() as connection:
            connection.execute(insert(tables.pipeline).values(name="zombie", declaration="[]"))
            check(connection, old)

    with pytest.raises(FencedError):
        write()
    with database.reading() as connection:
        assert connection.execute(select(tables.pipeline.c.name)).all() == []


def test_the_epoch_rises_for_ever_and_each_name_has_its_own(
    database: Database, clock: SimulatedClock
) -> None:
    epochs = []
    for _ in range(3):
        lease = acquire(database, clock, NAME)
        epochs.append(lease.epoch)
        release(database, lease)
    assert epochs == [1, 2, 3]
    assert acquire(database, clock, "sequence/other") == Lease("sequence/other", 1)


def test_a_holder_that_stays_keeps_its_lease_beyond_the_term(
    database: Database, clock: SimulatedClock
) -> None:
    mine = acquire(database, clock, NAME)
    for _ in range(3):
        clock.advance_to(clock.now() + timedelta(minutes=8))
        with database.transaction() as connection:
            keep(connection, clock, mine)
    with another_process(database, clock) as (_, report):
        assert report.startswith("busy")
    acquire(database, clock, NAME, take_over=True)
    with pytest.raises(FencedError), database.transaction() as connection:
        keep(connection, clock, mine)


def test_a_lease_is_held_for_a_block_however_it_ends(database: Database, clock: SimulatedClock) -> None:
    def fail_within() -> None:
        with holding(database, clock, NAME) as mine:
            assert is_held(database, clock, NAME)
            hold(database, mine)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_within()
    assert not is_held(database, clock, NAME)


def test_a_block_whose_lease_another_process_holds_does_not_begin(
    database: Database, clock: SimulatedClock
) -> None:
    with another_process(database, clock) as (_, said):
        assert said == "holds 1"
        with pytest.raises(BusyError), holding(database, clock, NAME):
            raise AssertionError("it began")
