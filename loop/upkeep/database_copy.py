"""The operational database in a backup: a SQLite file, from SQLite and from PostgreSQL alike."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast

from sqlalchemy import Connection, func, select, text, update

from headwater.infra.store.database import Database, insert_many
from headwater.infra.store.schema import every_table, tables
from headwater.loop.upkeep.manifest import Told
from headwater.loop.upkeep.sqlite_copy import guarded, only_reading, write_copy

__all__ = ["copy_database", "load_database", "pin", "revision_of", "rows_in"]

_AT_ONCE = 5_000
_WHAT = "database"
_REVISION = "SELECT version_num FROM alembic_version"


def pin(connection: Connection) -> str:
    """Set the moment that a reading transaction sees; return the schema's revision."""
    return str(connection.execute(text(_REVISION)).scalar_one())


def copy_database(connection: Connection, target: Path, told: Told) -> None:
    """Copy the database to a new SQLite file, as of the moment that a transaction sees.

    Parameters
    ----------
    connection
        A reading transaction that was pinned.
    target, told
        The file, and the progress.

    Raises
    ------
    StorageError
        If the file cannot be written.
    """
    if connection.dialect.name == "sqlite":
        source = connection.connection.driver_connection
        with guarded(target):
            write_copy(cast("sqlite3.Connection", source), target, _WHAT, told)
        return
    with closing(Database(f"sqlite:///{target}")) as copy, copy.transaction() as writing:
        copy_rows(connection, writing, told)
    with guarded(target), closing(sqlite3.connect(target)) as file:  # all of it in one file
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def load_database(source: Path, database: Database, told: Told) -> None:
    """Fill an empty database from the SQLite file of a backup, in one transaction; free its leases.

    Raises
    ------
    StorageError
        If the database refuses; it is empty then.
    """
    with (
        closing(Database(f"sqlite:///{source}")) as stored,
        stored.reading() as reading,
        database.transaction() as writing,
    ):
        copy_rows(reading, writing, told)
        _count_on(writing)
        free_leases(writing)


def free_leases(connection: Connection) -> None:
    """Free all leases: their holders write the stores that were backed up."""
    connection.execute(update(tables.lease).values(holder=None))


def copy_rows(source: Connection, target: Connection, told: Told) -> None:
    """Copy the rows of all tables, each after those that it refers to."""
    for number, table in enumerate(every_table.sorted_tables):
        rows = source.execute(select(table).execution_options(yield_per=_AT_ONCE))
        for some in rows.partitions():
            insert_many(target, table, [tuple(row) for row in some])
            told(f"{_WHAT}: {table.name}", number, len(every_table.sorted_tables))


def rows_in(connection: Connection) -> str | None:
    """Return the name of a table that holds rows; None if the database is empty."""
    for table in every_table.sorted_tables:
        if connection.execute(select(func.count()).select_from(table)).scalar_one():
            return table.name
    return None


def revision_of(path: Path) -> str:
    """Return the schema's revision of a SQLite file of a backup."""
    with guarded(path), closing(only_reading(path, still=True)) as connection:
        return str(connection.execute(_REVISION).fetchone()[0])


def _count_on(connection: Connection) -> None:
    """Let PostgreSQL number new rows from behind the copied ones; SQLite does so by itself."""
    if connection.dialect.name == "sqlite":
        return
    for table in every_table.sorted_tables:
        column = table.autoincrement_column
        if column is None or len(table.primary_key) > 1:
            continue
        newest = connection.execute(select(func.max(column))).scalar_one()
        if newest is not None:
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            connection.execute(select(func.setval(sequence, newest)))
