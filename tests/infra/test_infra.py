from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from headwater.infra.clock import SimulatedClock, from_us, to_us
from headwater.infra.settings import Settings, settings
from headwater.infra.store.database import Database
from headwater.infra.store.lease import acquire, check, release
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.schema import queue_tables, tables
from headwater.spec.errors import DeclarationError, FencedError, HeadwaterError, StorageError


def test_the_migrations_make_the_tables_that_the_code_names(settings: Settings) -> None:
    database = Database(settings.operational_url)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, queue_tables.queue.metadata) == []
    database.close()


def test_a_database_that_cannot_be_opened_says_where_to_look() -> None:
    with pytest.raises(StorageError, match="HEADWATER_DATABASE_URL"):
        Database("sqlite:////proc/nowhere/headwater.sqlite")


def test_a_transaction_that_fails_leaves_nothing(settings: Settings) -> None:
    database = Database(settings.operational_url)

    def half() -> None:
        with database.transaction() as connection:
            connection.execute(tables.pipeline.insert().values(name="half", declaration="[]"))
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError):
        half()
    with database.reading() as connection:
        assert connection.execute(tables.pipeline.select()).all() == []
    database.close()


def test_a_simulated_clock_never_goes_back() -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    clock = SimulatedClock(start)
    clock.advance_to(start + timedelta(hours=1))
    with pytest.raises(HeadwaterError, match="cannot go back"):
        clock.advance_to(start)
    assert from_us(to_us(clock.now())) == clock.now()


def test_a_lease_taken_over_fences_the_older_holder(settings: Settings, clock: SimulatedClock) -> None:
    database = Database(settings.operational_url)
    old = acquire(database, clock, "train/toy")
    new = acquire(database, clock, "train/toy", take_over=True)
    assert new.epoch == old.epoch + 1
    with database.transaction() as connection:
        check(connection, new)
        with pytest.raises(FencedError, match="taken over"):
            check(connection, old)
    release(database, old)  # does nothing
    with database.transaction() as connection:
        check(connection, new)
    database.close()


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_NOW", "yesterday")
    settings.cache_clear()
    with pytest.raises(DeclarationError, match="HEADWATER_NOW"):
        settings()
    settings.cache_clear()


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    assert "hush" not in repr(Settings(home=tmp_path, signing_key="hush"))  # type: ignore[arg-type] # pydantic converts


def test_a_folder_that_cannot_be_made_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    storage = open_storage(Settings(home=tmp_path / "home", storage=str(tmp_path / "file" / "below")))
    with pytest.raises(StorageError, match="HEADWATER_STORAGE"):
        storage.prepare()
