"""The operational database: SQLite below the home folder, or PostgreSQL by its address.

Both keep the same promise: who writes has the database to himself from the first statement to the
commit, and who reads sees one moment. SQLite does so by its file's lock. On PostgreSQL writers take
turns on an advisory lock of the transaction, so that none fails where SQLite's would have waited.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Dialect, Engine, Table, create_engine, event, insert, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from headwater.infra.store.local_storage import refusal_of
from headwater.infra.store.sqlite import BUSY_S, prepare, together
from headwater.spec.errors import StorageError

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["Database", "insert_many", "is_damage", "revisions"]

_READING = "headwater_reading"
_SQLITE_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_POSTGRES_DAMAGED = {"XX001", "XX002"}  # data_corrupted, index_corrupted
_TURN = text(
    "SELECT set_config('lock_timeout', :patience, true), pg_advisory_xact_lock(:turn)"
).bindparams(patience=f"{BUSY_S}s", turn=0x68656164)  # the number is ours alone: "head"


class Database:
    """Transactions on the operational database, migrated to the newest schema when opened.

    Parameters
    ----------
    url
        SQLAlchemy address; of PostgreSQL, ``postgresql://`` and ``postgresql+psycopg://`` are the same.

    Raises
    ------
    StorageError
        If the database cannot be opened or migrated.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._marking: PoolProxiedConnection | None = None
        try:
            self.engine = _engine(url)
            _migrate(self.engine)
        except ModuleNotFoundError as error:
            raise StorageError(
                f"the driver of the database is not installed: {error.name}",
                hint="pip install 'headwater[postgres]'; HEADWATER_DATABASE_URL begins with postgresql://",
            ) from error
        except (SQLAlchemyError, OSError) as error:
            raise _unopened(make_url(url), error) from error

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open one serialised transaction: commit at the end, roll back on any error.

        Raises
        ------
        StorageError
            If the database is away, full or corrupt.
        """
        with _guarded(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self, *, afresh: bool = False) -> Iterator[Connection]:
        """Open one transaction that only reads, beside a writer.

        Parameters
        ----------
        afresh
            Read SQLite's file, and not the pages that an earlier transaction has read.

        Raises
        ------
        StorageError
            If the database is away or corrupt.
        """
        with _guarded(), self.engine.connect() as connection:
            connection.execution_options(**_reading(connection.dialect))
            with connection.begin():
                if afresh and connection.dialect.name == "sqlite":
                    connection.exec_driver_sql("PRAGMA shrink_memory")
                yield connection

    def mark(self) -> str:
        """Return a mark that is another one after each commit of another connection, for one thread.

        One who follows many rows need not look at them while it stays.

        Raises
        ------
        StorageError
            If the database is away or corrupt.
        """
        with _guarded():
            if self.engine.dialect.name != "sqlite":
                with self.engine.connect() as connection:
                    connection.execution_options(**_reading(connection.dialect))
                    return str(connection.scalar(text("SELECT pg_current_snapshot()::text")))
            if self._marking is None:
                self._marking = self.engine.raw_connection()
            try:  # it counts the commits of others for one connection
                return str(self._marking.cursor().execute("PRAGMA data_version").fetchone()[0])
            except sqlite3.Error as error:
                raise StorageError(f"the operational database refuses: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        if self._marking is not None:
            self._marking.close()
        self.engine.dispose()


@contextmanager
def _guarded() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise StorageError(
            f"the operational database refuses: {_first_line(error)}",
            hint="nothing was written; check the disk and the server, then try again",
        ) from error


def is_damage(error: StorageError) -> bool:
    """Return whether a database refused since a page or a text of it is damaged."""
    original = getattr(error.__cause__, "orig", error.__cause__)
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", None) or 0
        return code & 0xFF in _SQLITE_DAMAGED or str(original).startswith("Could not decode")
    return getattr(original, "sqlstate", None) in _POSTGRES_DAMAGED


def insert_many(connection: Connection, table: Table, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows by the driver's own bulk call; in SQLite, at half its cost, many in one statement.

    Parameters
    ----------
    connection
        An open transaction.
    table
        Where to.
    rows
        Values of every column, in the table's order, of types that the driver takes as they are.
    """
    statement, positional = _insert(table, connection.dialect)
    if positional:
        beginning, values, row = statement.partition("VALUES")
        for many, parameters in together(beginning + values, row, rows):
            connection.exec_driver_sql(many, parameters)
    elif rows:
        names = [column.name for column in table.columns]
        connection.exec_driver_sql(statement, [dict(zip(names, row, strict=True)) for row in rows])


@lru_cache(maxsize=64)
def _insert(table: Table, dialect: Dialect) -> tuple[str, bool]:
    compiled = insert(table).compile(dialect=dialect)
    return str(compiled), bool(compiled.positional)


def _unopened(url: URL, error: Exception) -> StorageError:
    """Return the error of a database that cannot be opened; SQLite does not say what the disk says."""
    reason, hint = _first_line(error), "that its server runs or its folder exists"
    if url.get_backend_name() == "sqlite" and url.database:
        refusal = refusal_of(Path(url.database).parent)
        if refusal is not None:
            reason, hint = f"its folder cannot be written: {refusal}", "the disk"
    return StorageError(
        f"cannot open the database {url.render_as_string(hide_password=True)}: {reason}",
        hint=f"check HEADWATER_DATABASE_URL or HEADWATER_HOME, and {hint}",
    )


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return _engine_of_postgres(parsed)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_S, "isolation_level": None})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin)
    return engine


def _engine_of_postgres(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    # Each statement of a writer sees what was committed before it, which is all: he has his turn.
    engine = create_engine(url, isolation_level="READ COMMITTED", pool_pre_ping=True)
    event.listen(engine, "begin", _await_turn)
    return engine


def _await_turn(connection: Connection) -> None:
    if not connection.get_execution_options().get(_READING, False):
        connection.execute(_TURN)


def _reading(dialect: Dialect) -> dict[str, object]:
    if dialect.name == "sqlite":
        return {_READING: True}
    return {_READING: True, "isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


def _prepare_sqlite(connection: sqlite3.Connection, _record: ConnectionPoolEntry) -> None:
    prepare(connection)
    for pragma in ("foreign_keys = ON", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get(_READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _migrate(engine: Engine) -> None:
    from alembic import command  # noqa: PLC0415 - half a second that most commands need not spend
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = _migrations()
    with engine.begin() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current != ScriptDirectory.from_config(config).get_current_head():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def revisions() -> set[str]:
    """Return the revisions of the schema that this version knows."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    return {script.revision for script in ScriptDirectory.from_config(_migrations()).walk_revisions()}


def _migrations() -> "Config":
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[1] / "migrations"))
    return config
