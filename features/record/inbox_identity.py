"""The identity of an inbox file and of its log, stored in the file itself."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from headwater.infra.ids import new_id
from headwater.infra.store.sqlite import BUSY_S
from headwater.spec.errors import IdentityError

__all__ = [
    "InboxIdentity",
    "identity_in",
    "read_identity",
    "restore_identity",
    "set_log",
    "take_identity",
]

_TABLE = "CREATE TABLE identity (inbox TEXT NOT NULL, log TEXT)"
_SELECT = "SELECT inbox, log FROM identity"
_THERE = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"


class InboxIdentity(msgspec.Struct, frozen=True):
    """The ids that an inbox file bears: its own and its log's.

    Parameters
    ----------
    inbox
        A UUID, drawn when the file was made. The database keeps by it how far the inbox is read.
    log
        The log that it belongs to; None until a database has registered it.
    """

    inbox: str
    log: str | None


def identity_in(connection: sqlite3.Connection, path: Path, schema: Sequence[str]) -> InboxIdentity:
    """Return an inbox's identity; a new file gets one together with its tables, in one transaction.

    Parameters
    ----------
    connection
        In autocommit mode.
    path
        The file, for the error.
    schema
        Statements that make the inbox's tables.

    Raises
    ------
    IdentityError
        If the file was made before inboxes had ids.
    sqlite3.Error
        If the file is none of SQLite's, or refuses.
    """
    if not _has(connection, "identity"):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not _has(connection, "identity"):
                _make(connection, path, schema)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return _read(connection)


def set_log(connection: sqlite3.Connection, log: str) -> InboxIdentity:
    """Store the log that the inbox belongs to, unless one is stored; return the identity then."""
    connection.execute("UPDATE identity SET log = ? WHERE log IS NULL", (log,))
    return _read(connection)


def take_identity(path: Path, identity: InboxIdentity) -> None:
    """Give a new inbox, which nobody uses, the identity of the one in whose place it is put.

    Raises
    ------
    sqlite3.Error
        If it is not there, or the disk refuses.
    """
    with closing(sqlite3.connect(path, timeout=BUSY_S)) as connection, connection:
        connection.execute("UPDATE identity SET inbox = ?, log = ?", (identity.inbox, identity.log))


def restore_identity(connection: sqlite3.Connection, identity: InboxIdentity) -> None:
    """Give a file that takes another one's place its identity."""
    connection.execute(_TABLE)
    connection.execute("INSERT INTO identity VALUES (?, ?)", (identity.inbox, identity.log))


def read_identity(path: Path) -> InboxIdentity | None:
    """Return the identity of an inbox file, and change nothing; None if the file has none.

    Raises
    ------
    sqlite3.Error
        If there is no such file, or it is none of SQLite's.
    """
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as connection:
        return _read(connection) if _has(connection, "identity") else None


def _has(connection: sqlite3.Connection, table: str) -> bool:
    return bool(connection.execute(_THERE, (table,)).fetchone()[0])


def _read(connection: sqlite3.Connection) -> InboxIdentity:
    inbox, log = connection.execute(_SELECT).fetchone()
    return InboxIdentity(inbox, log)


def _make(connection: sqlite3.Connection, path: Path, schema: Sequence[str]) -> None:
    if _has(connection, "entry"):
        raise IdentityError(
            f"the inbox {path} bears no id: it was made before inboxes had one",
            hint="set HEADWATER_HOME to a new folder, and import the history there",
            thing="the inbox",
            where=str(path),
        )
    for statement in schema:
        connection.execute(statement)
    connection.execute(_TABLE)
    connection.execute("INSERT INTO identity (inbox) VALUES (?)", (new_id(),))
