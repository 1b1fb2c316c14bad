import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, insert, select, text, update

from headwater.infra.settings import Settings
from headwater.infra.store.database import Database, insert_many
from headwater.infra.store.schema import queue_tables, tables
from headwater.spec.errors import StorageError


def add(connection: Connection, name: str) -> None:
    connection.execute(insert(tables.pipeline).values(name=name, declaration="[]"))


def names(connection: Connection) -> list[str]:
    return list(connection.execute(select(tables.pipeline.c.name).order_by("name")).scalars())


def test_the_migrations_make_what_the_code_declares(database: Database) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, queue_tables.queue.metadata) == []


def test_opening_again_changes_nothing(database: Database) -> None:
    with database.transaction() as connection:
        add(connection, "toy")
    again = Database(database.url)
    with again.reading() as connection:
        assert names(connection) == ["toy"]
        revisions = connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one()
    again.close()
    assert revisions == 1


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet" / "there.sqlite"
    Database(f"sqlite:///{path}").close()
    assert path.is_file()


def test_opening_waits_for_a_process_that_is_just_making_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        other.execute("COMMIT")

    monkeypatch.setattr("headwater.infra.store.sqlite.sleep", pause)
    Database(f"sqlite:///{tmp_path / 'new.sqlite'}").close()
    other.close()
    assert len(pauses) == 1


def test_an_error_rolls_all_of_a_transaction_back(database: Database) -> None:
    class Stop(Exception):  # noqa: N818 - not an error
        pass

    def half() -> None:
        with database.transaction() as connection:
            add(connection, "first")
            raise Stop

    with pytest.raises(Stop):
        half()
    with database.reading() as connection:
        assert names(connection) == []


def test_a_reader_is_not_kept_waiting_and_sees_one_moment(database: Database) -> None:
    other = Database(database.url)
    with database.transaction() as writing:
        add(writing, "first")
        with other.reading() as reading:
            assert names(reading) == []
    with other.reading() as reading:
        assert names(reading) == ["first"]
        with database.transaction() as writing:
            add(writing, "second")
        assert names(reading) == ["first"]
    other.close()


def test_writers_take_turns_and_none_loses_what_another_wrote(database: Database) -> None:
    with database.transaction() as connection:
        add(connection, "0")
    name = tables.pipeline.c.name

    def count_up(_writer: int) -> None:
        for _ in range(10):
            with database.transaction() as connection:
                found = int(connection.execute(select(name)).scalar_one())
                connection.execute(update(tables.pipeline).values(name=str(found + 1)))

    with ThreadPoolExecutor(3) as writers:
        list(writers.map(count_up, range(3)))
    with database.reading() as connection:
        assert names(connection) == ["30"]


def test_several_processes_may_open_a_new_database_at_once(new_postgres: Callable[[], str]) -> None:
    url = new_postgres()
    with ThreadPoolExecutor(4) as several:
        opened = list(several.map(Database, [url] * 4))
    with opened[0].reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
    for each in opened:
        each.close()


def test_a_reading_transaction_cannot_write(new_postgres: Callable[[], str]) -> None:
    database = Database(new_postgres())
    with pytest.raises(StorageError, match="read-only"), database.reading() as connection:
        add(connection, "toy")
    database.close()


def test_a_commit_is_synced(sqlite: Database) -> None:
    with sqlite.reading() as connection:
        for pragma, wanted in {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}.items():
            assert connection.execute(text(f"PRAGMA {pragma}")).scalar_one() == wanted


def test_a_row_of_no_pipeline_is_refused(database: Database) -> None:
    with (
        pytest.raises(StorageError, match=r"(?i)foreign key") as refused,
        database.transaction() as connection,
    ):
        connection.execute(insert(tables.inbox_position).values(pipeline_id=99, inbox="toy", position=0))
    assert "nothing was written" in refused.value.hint


def test_many_rows_at_once_are_all_or_none(database: Database) -> None:
    rows: list[tuple[Any, ...]] = [(i, f"pipeline-{i}", "[]") for i in range(2_000)]
    with database.transaction() as connection:
        insert_many(connection, tables.pipeline, rows)
        insert_many(connection, tables.pipeline, [])
    with (
        pytest.raises(StorageError, match=r"(?i)unique"),
        database.transaction() as connection,
    ):
        insert_many(connection, tables.pipeline, [(2_000, "new", "[]"), (2_001, "pipeline-7", "[]")])
    with database.reading() as connection:
        found = connection.execute(select(func.count()).select_from(tables.pipeline)).scalar_one()
    assert found == 2_000


@pytest.mark.parametrize(
    "content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4_000]
)
def test_a_file_that_is_no_database_is_a_storage_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "headwater.sqlite"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"cannot open the database .*headwater\.sqlite") as refused:
        Database(f"sqlite:///{path}")
    assert "HEADWATER_DATABASE_URL" in refused.value.hint
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot open the database"):
        Database(f"sqlite:///{tmp_path}/file/headwater.sqlite")


def test_a_password_is_not_shown() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StorageError) as refused:
        Database("postgresql+psycopg://me:hunter2@127.0.0.1:1/log")
    assert "hunter2" not in str(refused.value)


def test_a_log_and_its_database_share_a_file(settings: Settings, sqlite: Database) -> None:
    path = sqlite.url.removeprefix("sqlite:///")
    assert Path(path).parent == settings.root
    with sqlite3.connect(path) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    plain.close()


def test_a_mark_changes_with_each_commit_of_others_and_with_nothing_else(database: Database) -> None:
    """Also with one that had begun before the mark was read."""
    other = Database(database.url)
    try:
        marks = [database.mark()]
        with other.reading() as connection:
            names(connection)
        assert database.mark() == marks[0]
        for name in ("one", "two"):
            with other.transaction() as connection:
                add(connection, name)
                marks.append(database.mark())
            marks.append(database.mark())
            assert marks[-1] not in marks[:-1]
        with database.transaction() as connection:
            add(connection, "three")
        assert database.mark() != marks[-1]
        assert database.mark() == database.mark()
    finally:
        other.close()
