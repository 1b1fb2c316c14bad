"""A home is moved, or its storage is: states are found again, and no new one goes to the old place."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.loop.conftest import day
from tests.loop.upkeep.conftest import grow

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.open_storage import open_storage
from headwater.loop.binding import Bound
from headwater.loop.rebuild import rebuild_here
from headwater.loop.training.update import train
from headwater.loop.upkeep.moving import follow_move
from headwater.spec.errors import BusyError, ConflictError, IntegrityError, NotFoundError

OpenBound = Callable[..., Bound]


def test_a_moved_home_goes_on_after_one_command(
    home: Settings, open_bound: OpenBound, tmp_path: Path
) -> None:
    bound = open_bound(home)
    grow(bound)
    bound.close()
    new = Settings(home=tmp_path / "elsewhere, with a space")
    before = home.artifact_uri
    shutil.move(home.root, new.home)
    moved = open_bound(new, SimulatedClock(bound.clock.now()))
    for door in (train, lambda one: one.registry.champion()):
        with pytest.raises(IntegrityError, match="was moved or copied: headwater moved"):
            door(moved)
    moved.close()
    result = follow_move(new)
    assert (result.before, result.changed > 0) == ((before,), True)
    again = open_bound(new, SimulatedClock(bound.clock.now()))
    assert rebuild_here("line", "1", new).equal
    grow(again)
    assert rebuild_here("line", "2", new, from_root=True).equal
    assert not home.place.exists()
    again.close()
    assert follow_move(new).changed == 0


def test_a_copied_home_does_not_write_beside_the_first_ones_states(
    home: Settings, open_bound: OpenBound, tmp_path: Path
) -> None:
    bound = open_bound(home)
    grow(bound)
    bound.close()
    copied = Settings(home=tmp_path / "copied")
    shutil.copytree(home.root, copied.home)
    states = sorted((home.root / "storage").rglob("state.bin"))
    other = open_bound(copied, SimulatedClock(bound.clock.now()))
    day(other)
    with pytest.raises(IntegrityError, match="MLflow keeps the states of 'line' at"):
        train(other, by="test")
    other.close()
    follow_move(copied)
    grow(open_bound(copied, SimulatedClock(other.clock.now())))
    assert sorted((home.root / "storage").rglob("state.bin")) == states


def test_a_storage_that_was_moved_into_a_bucket(
    home: Settings, on_s3: Settings, open_bound: OpenBound
) -> None:
    bound = open_bound(home)
    grow(bound)
    bound.close()
    new = home.model_copy(update={"storage": on_s3.storage, "s3_endpoint": on_s3.s3_endpoint})
    with pytest.raises(ConflictError, match="no state of line is at s3://"):
        follow_move(new)
    storage = open_storage(new)
    for path in (home.root / "storage").rglob("*"):
        if path.is_file():
            storage.put(path, *path.relative_to(home.root / "storage").parts)
    shutil.rmtree(home.root / "storage")
    assert follow_move(new).after == new.artifact_uri
    grow(open_bound(new, SimulatedClock(bound.clock.now())))
    assert rebuild_here("line", "2", new, from_root=True).equal


def test_nobody_may_be_at_work_while_addresses_change(home: Settings, open_bound: OpenBound) -> None:
    grow(open_bound(home))
    with pytest.raises(BusyError, match="is in use by process"):
        follow_move(home)


def test_without_records_there_is_nothing_to_change(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there are no records of MLflow"):
        follow_move(Settings(home=tmp_path / "new"))
