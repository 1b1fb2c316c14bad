"""A pipeline is deleted from every store, whenever that is killed, and its name is used afresh."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select
from tests.loop.conftest import PIPELINE, day
from tests.loop.upkeep.conftest import grow

from headwater.features.record.inbox import inbox_file
from headwater.infra.clock import SimulatedClock
from headwater.infra.commit_points import DELETE_POINTS
from headwater.infra.settings import Settings
from headwater.infra.store.audit import audited
from headwater.infra.store.database import Database
from headwater.infra.store.identity import Claim
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.schema import every_table, tables
from headwater.loop.binding import Bound
from headwater.loop.rebuild import rebuild_here
from headwater.loop.upkeep import deletion
from headwater.loop.upkeep.deletion import delete_pipeline
from headwater.spec.errors import BusyError, ConflictError, IdentityError, NotFoundError

OpenBound = Callable[..., Bound]


def left(settings: Settings, name: str = "line") -> list[str]:
    """List what is left of a pipeline below the home, in storage and in the database."""
    found = [str(path) for path in settings.root.rglob(f"*{name}*")]
    found += [key for key in open_storage(settings).names() if f"/{name}/" in key]
    database = Database(settings.operational_url)
    with database.reading() as connection:
        for table in every_table.sorted_tables:
            if "pipeline_id" in table.c:
                owned = select(func.count()).where(table.c.pipeline_id.is_not(None))
                if connection.execute(owned.select_from(table)).scalar_one():
                    found.append(table.name)
    database.close()
    return found


def check_afresh(settings: Settings, open_bound: OpenBound, clock: SimulatedClock) -> None:
    """Use the name of a deleted pipeline for a new one."""
    bound = open_bound(settings, SimulatedClock(clock.now()))
    assert bound.log.counts().predictions == 0
    assert bound.registry.champion() is None
    grow(bound)
    grow(bound)
    assert [version.number for version in bound.registry.store.versions()] == ["1", "2"]
    assert rebuild_here("line", "2", settings, from_root=True).equal


def test_a_deleted_pipeline_is_gone_and_its_name_free(stores: Settings, open_bound: OpenBound) -> None:
    bound = open_bound(stores)
    grow(bound)
    grow(bound)
    (stores.root / "live" / "line").mkdir(parents=True)
    log, clock = bound.log.identity.log, bound.clock
    assert isinstance(clock, SimulatedClock)
    bound.close()
    result = delete_pipeline("line", stores, by="test")
    assert (result.pipeline, result.log, result.versions) == ("line", log, 2)
    assert left(stores) == []
    database = Database(stores.operational_url)
    newest = audited(database, 1)[0]
    database.close()
    assert (newest.action, newest.by) == ("delete pipeline", "test")
    assert newest.detail == {"pipeline": "line", "log": log}
    with pytest.raises(NotFoundError, match="no pipeline 'line' has recorded anything here"):
        delete_pipeline("line", stores, by="test")
    check_afresh(stores, open_bound, clock)


def test_it_can_be_deleted_again_and_again(home: Settings, open_bound: OpenBound) -> None:
    for _ in range(2):
        bound = open_bound(home)
        grow(bound)
        bound.close()
        delete_pipeline("line", home, by="test")
        assert left(home) == []


@pytest.mark.parametrize("point", DELETE_POINTS)
def test_a_killed_deletion_is_met_by_name_and_goes_on(
    point: str, home: Settings, open_bound: OpenBound
) -> None:
    bound = open_bound(home)
    grow(bound)
    clock = bound.clock
    assert isinstance(clock, SimulatedClock)
    bound.close()
    bound.database.close()
    child = os.fork()
    if not child:
        vars(deletion)["reached"] = lambda at: at == point and os.kill(os.getpid(), signal.SIGKILL)
        delete_pipeline("line", home, by="test")
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    with pytest.raises(ConflictError, match=r"half deleted.*headwater pipelines delete line"):
        Bound(PIPELINE, home)
    delete_pipeline("line", home, by="test")
    assert left(home) == []
    check_afresh(home, open_bound, clock)


def test_a_pipeline_that_is_in_use_is_left_as_it_is(home: Settings, open_bound: OpenBound) -> None:
    bound = open_bound(home)
    grow(bound)
    with pytest.raises(BusyError, match=r"line.sqlite is in use by process \d+"):
        delete_pipeline("line", home, by="test", first=pytest.fail)
    bound.close()
    with bound.database.transaction() as connection:
        elsewhere = {"holder": "other/1/1.00", "epoch": 1, "expires_at_us": 2**60}
        connection.execute(insert(tables.lease).values(name="batch/line", **elsewhere))
    with pytest.raises(BusyError, match="'batch/line' is held by a process"):
        delete_pipeline("line", home, by="test", first=pytest.fail)
    assert rebuild_here("line", "1", home).equal


def test_what_is_of_another_log_is_left_as_it_is(
    home: Settings, open_bound: OpenBound, tmp_path: Path
) -> None:
    bound = open_bound(home)
    grow(bound)
    bound.close()
    other = Settings(home=tmp_path / "other")
    theirs = open_bound(other)
    day(theirs, collected=False)
    theirs.close()
    mixed = Settings(home=other.home, storage=str(home.root / "storage"))
    with pytest.raises(IdentityError, match="the storage of 'line'"):
        delete_pipeline("line", mixed, by="test")
    mixed = Settings(home=other.home, mlflow_uri=home.tracking_uri)
    with pytest.raises(IdentityError, match="MLflow's experiment"):
        delete_pipeline("line", mixed, by="test")
    assert inbox_file("line", other).exists()
    Claim(open_storage(home), bound.log.identity).check()
    assert rebuild_here("line", "1", home).equal


def test_other_pipelines_are_left_as_they_are(home: Settings, open_bound: OpenBound) -> None:
    bound = open_bound(home)
    grow(bound)
    grow(open_bound(home, name="line-2"))
    bound.close()
    delete_pipeline("line", home, by="test")
    assert rebuild_here("line-2", "1", home, from_root=True).equal
