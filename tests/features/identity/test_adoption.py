"""A home is lost, and its database, storage and MLflow are left: another home takes the log over."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.conftest import START
from tests.loop.conftest import PIPELINE, day, mlflow_template

from headwater.features.record.inbox import inbox_file
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.lease import acquire
from headwater.infra.store.schema import tables
from headwater.loop.adopt import AdoptedLog, adopt
from headwater.loop.binding import Bound
from headwater.loop.rebuild import rebuild_here
from headwater.loop.training.update import train
from headwater.spec.errors import (
    BusyError,
    ConflictError,
    DigestError,
    HeadwaterError,
    IdentityError,
    NotFoundError,
)

__all__ = ["mlflow_template"]

Opener = Callable[[str], Settings]


@pytest.fixture
def at(tmp_path: Path, mlflow_template: Path) -> Opener:
    """Give a home on the stores that all homes of the test share."""
    shutil.copy(mlflow_template, tmp_path / "mlflow.sqlite")

    def home(name: str) -> Settings:
        return Settings(
            home=tmp_path / name,
            database_url=f"sqlite:///{tmp_path / 'left.sqlite'}",
            mlflow_uri=f"sqlite:///{tmp_path / 'mlflow.sqlite'}",
            storage=str(tmp_path / "storage"),
        )

    return home


@pytest.fixture
def lost(at: Opener) -> Settings:
    """A home of 240 examples and two versions, ten records of which nobody has sequenced."""
    settings = at("lost")
    with Bound(PIPELINE, settings, SimulatedClock(START)) as bound:
        for _ in range(2):
            day(bound)
            train(bound)
        day(bound, 5, collected=False)
    return settings


def taken(settings: Settings, *, new_key: bool = False) -> AdoptedLog:
    database = Database(settings.operational_url)
    try:
        return adopt("line", settings, database, SimulatedClock(START), by="test", new_key=new_key)
    finally:
        database.close()


def bring_key(lost: Settings, to: Settings) -> None:
    shutil.copy(lost.root / "signing.key", to.root / "signing.key")


def test_a_lost_home_s_log_goes_on_in_another_where_it_ended(at: Opener, lost: Settings) -> None:
    new = at("new")
    with pytest.raises(IdentityError, match="is missing") as refused:
        Bound(PIPELINE, new)
    assert "headwater adopt line" in refused.value.hint
    bring_key(lost, new)
    adopted = taken(new)
    assert (adopted.offset, adopted.archived, adopted.versions) == (240, 240, 2)
    assert (adopted.refused, adopted.gone) == ((), ())
    (inbox,) = adopted.lost
    assert inbox.read_to == 480
    assert inbox.received_until == START + timedelta(days=2)
    with Bound(PIPELINE, new, SimulatedClock(START + timedelta(days=5))) as bound:
        assert bound.log.identity.log == adopted.log
        day(bound, 20)
        assert bound.log.archive["examples"].stop() == 260
        made = train(bound).version
        assert made is not None
        assert (made.number, made.parent, made.examples.start) == ("3", "2", 240)
    assert all(version.equal for version in rebuild_here("line", "3", new).versions)


def test_a_record_that_a_lost_home_has_sequenced_is_not_there_twice(at: Opener, lost: Settings) -> None:
    new = at("new")
    bring_key(lost, new)
    taken(new)
    with Bound(PIPELINE, new, SimulatedClock(START)) as bound:
        day(bound)  # as the first day of the lost home was
        assert bound.log.archive["examples"].stop() == 240
        assert bound.log.predictions().height == 240


def test_the_old_home_is_refused_from_then_on(at: Opener, lost: Settings) -> None:
    new = at("new")
    bring_key(lost, new)
    taken(new)
    with pytest.raises(IdentityError, match="was replaced: another home took over"):
        Bound(PIPELINE, lost)
    with pytest.raises(ConflictError, match="is of this log"):
        taken(new)
    bring_key(lost, at("third"))
    taken(at("third"))
    with pytest.raises(IdentityError, match="was replaced"):
        Bound(PIPELINE, new)


def test_what_cannot_be_adopted_is_refused_before_any_effect(
    at: Opener, lost: Settings, tmp_path: Path
) -> None:
    new = at("new")
    refused(new, DigestError, "has no signing key")
    (new.root / "signing.key").write_text("another")
    refused(new, DigestError, "does not hold under this key")
    bring_key(lost, new)
    refused(lost, ConflictError, "is of this log")
    alone = Settings(home=tmp_path / "alone")
    database = Database(alone.operational_url)
    with pytest.raises(NotFoundError, match="keeps a log of 'line'"):
        adopt("line", alone, database, by="test")
    database.close()
    stranger = Settings(home=tmp_path / "stranger")
    Bound(PIPELINE, stranger).close()
    inbox_file("line", new).parent.mkdir()
    shutil.copy(inbox_file("line", stranger), inbox_file("line", new))
    refused(new, ConflictError, "has records or another log")
    inbox_file("line", new).unlink()
    database = Database(new.operational_url)
    acquire(database, SimulatedClock(START), "train/line")
    with database.transaction() as connection:
        lease = tables.lease
        connection.execute(lease.update().values(holder="elsewhere/1/1.00"))
    database.close()
    refused(new, BusyError, "is held by elsewhere")


def refused(settings: Settings, error: type[HeadwaterError], match: str) -> None:
    database = Database(settings.operational_url)
    before = rows(database)
    with pytest.raises(error, match=match):
        taken(settings)
    assert rows(database) == before
    database.close()


def rows(database: Database) -> list[object]:
    with database.reading() as connection:
        found = [connection.execute(select(one)).all() for one in (tables.inbox_position, tables.audit)]
    return list(found)


def test_without_the_key_no_version_is_loaded_again_and_a_new_line_is_learned(
    at: Opener, lost: Settings
) -> None:
    new = at("new")
    adopted = taken(new, new_key=True)
    assert adopted.refused == ("1", "2")
    with Bound(PIPELINE, new, SimulatedClock(START + timedelta(days=5))) as bound:
        with pytest.raises(DigestError):
            bound.registry.promote("1", by="test", reason="it cannot be trusted")
        made = train(bound, from_scratch=True).version
        assert made is not None
        assert (made.number, made.parent, made.examples.stop) == ("3", None, 240)


def test_versions_that_mlflow_has_lost_are_registered_anew_and_one_without_files_is_named(
    at: Opener, lost: Settings, mlflow_template: Path
) -> None:
    new = at("new")
    bring_key(lost, new)
    shutil.copy(mlflow_template, new.root / "mlflow.sqlite")
    without = Settings(home=new.home, database_url=new.database_url, storage=new.storage)
    states = sorted((Path(without.storage_uri) / "mlflow").rglob("state.bin"), key=_made_at)
    states[0].unlink()
    adopted = taken(without)
    assert (adopted.versions, adopted.again, adopted.gone) == (1, ("2",), ("1",))
    assert list(adopted.left) == ["1"]
    assert "state.bin is gone" in adopted.left["1"]


def _made_at(path: Path) -> float:
    return path.stat().st_mtime
