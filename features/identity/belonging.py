"""Checks that an inbox and a database belong to one log, and that the inbox has lost no record."""

import sqlite3
from pathlib import Path

from sqlalchemy import Connection, select

from headwater.features.record.entries import LABEL
from headwater.features.record.inbox import Inbox
from headwater.features.record.inbox_identity import InboxIdentity, read_identity
from headwater.infra.ids import made_at
from headwater.infra.store.database import Database, is_damage
from headwater.infra.store.schema import tables
from headwater.spec.errors import IdentityError, IntegrityError, StorageError

__all__ = ["RETIRED", "check_absent", "check_file", "check_home", "check_inbox", "check_new"]


RETIRED = "retired/"
"""Before the ids of inboxes in whose place ``headwater adopt`` has put another."""


def check_absent(database: Database, pipeline: str, path: Path) -> None:
    """Refuse to make an inbox for a log of the database whose own inbox is elsewhere or lost.

    Raises
    ------
    IdentityError
        If the file is missing, and the database keeps such a log; no file is made.
    """
    if path.exists():
        return
    with database.reading() as connection:
        log = connection.execute(
            select(tables.log.c.uuid)
            .join(tables.pipeline, tables.pipeline.c.id == tables.log.c.pipeline_id)
            .where(tables.pipeline.c.name == pipeline)
        ).scalar_one_or_none()
    if log is not None and not path.exists():  # another process may have begun the log meanwhile
        raise _stray(path, None, log, state="is missing")


def check_new(inbox: Inbox) -> None:
    """Refuse to begin a log with an inbox of another log, which the database does not know.

    Raises
    ------
    IdentityError
        If it does.
    """
    if inbox.identity.log is not None:
        raise _stray(inbox.path, inbox.identity.log, None)


def check_inbox(database: Database, pipeline_id: int, inbox: Inbox) -> None:
    """Refuse an inbox of another log, or one that ends before the position the database has read.

    The last record that was read is compared, unless it lies in a damaged page of the database.

    Raises
    ------
    IdentityError
        If it belongs to another log, or is not known.
    IntegrityError
        If it has lost records.
    """
    with database.reading() as connection:
        read_to = _check_known(connection, pipeline_id, inbox.identity, inbox.path)
    if inbox.end() < read_to:
        raise IntegrityError(
            f"the inbox {inbox.path} ends at position {inbox.end()}, and the database has read it up to "
            f"{read_to}: it is an older copy, and as many records that come next would be passed over",
            hint="restore the newest copy of the inbox, or the database from a copy as old as the inbox",
        )
    try:
        with database.reading() as connection:
            _check_last_read(connection, pipeline_id, inbox, read_to)
    except StorageError as error:
        if not is_damage(error):
            raise


def _check_last_read(connection: Connection, pipeline_id: int, inbox: Inbox, read_to: int) -> None:
    """Refuse an inbox whose last entry read by the database differs from the stored record."""
    entries = inbox.read(read_to - 1, 1) if read_to else []
    if not entries:
        return
    _, kind, id_, _, payload = entries[0]
    prediction, label = tables.prediction.c, tables.label.c
    position, stored = connection.execute(
        select(prediction.position, prediction.payload).where(
            prediction.pipeline_id == pipeline_id, prediction.id == id_
        )
    ).one_or_none() or (None, None)
    if kind == LABEL:
        of = (label.prediction_position == position) | (label.prediction_id == id_)
        labels = select(label.payload).where(label.pipeline_id == pipeline_id, of)
        is_known = payload in {
            bytes(label_payload) for label_payload in connection.execute(labels).scalars()
        }
    else:
        is_known = stored is not None and bytes(stored) == payload
    if not is_known:
        raise IdentityError(
            f"the database has read the inbox {inbox.path} up to position {read_to}, and the record "
            f"there (of prediction {id_!r}) is not the one that it read: a copy of this home went on by "
            "itself, and as many records of this one would be passed over",
            hint="go on with the home that the database has read, and record there again what only this "
            "one has",
            thing="the inbox",
            where=str(inbox.path),
            log=inbox.identity.log,
        )


def check_home(database: Database, pipeline_id: int, path: Path) -> None:
    """Refuse a home whose inbox belongs to another log; a home without an inbox passes.

    Raises
    ------
    IdentityError
        If its inbox belongs to another log, or is not known.
    StorageError
        If the file cannot be read.
    """
    identity = _identity(path) if path.exists() else None
    if identity is not None:
        with database.reading() as connection:
            _check_known(connection, pipeline_id, identity, path)


def check_file(path: Path) -> None:
    """Refuse an inbox file that belongs to a log, if the database knows no log of that pipeline.

    Raises
    ------
    IdentityError
        If it does.
    StorageError
        If the file cannot be read.
    """
    identity = _identity(path)
    if identity is not None and identity.log is not None:
        raise _stray(path, identity.log, None)


def _identity(path: Path) -> InboxIdentity | None:
    try:
        return read_identity(path)
    except sqlite3.Error as error:
        raise StorageError(
            f"the inbox {path} cannot be read: {error}", hint="check the disk, and HEADWATER_HOME"
        ) from error


def _check_known(connection: Connection, pipeline_id: int, identity: InboxIdentity, path: Path) -> int:
    """Return the position up to which a database has read an inbox of the log."""
    log = connection.execute(
        select(tables.log.c.uuid).where(tables.log.c.pipeline_id == pipeline_id)
    ).scalar_one_or_none()
    read = tables.inbox_position.c
    read_to = connection.execute(
        select(read.position).where(read.pipeline_id == pipeline_id, read.inbox == identity.inbox)
    ).scalar_one_or_none()
    if log is None or read_to is None or identity.log not in {None, log}:
        retired = select(read.inbox).where(
            read.pipeline_id == pipeline_id, read.inbox == f"{RETIRED}{identity.inbox}"
        )
        if connection.execute(retired).first() is not None:
            raise _replaced(path, identity)
        raise _stray(path, identity.log, log)
    return int(read_to)


def _replaced(path: Path, identity: InboxIdentity) -> IdentityError:
    return IdentityError(
        f"the inbox {path} was replaced: another home took over its log by headwater adopt",
        hint="go on with that home (headwater audit says which), and record there again what only this "
        "one has",
        thing="the inbox",
        where=str(path),
        log=identity.log,
    )


def _stray(path: Path, whose: str | None, log: str | None, state: str = "is new") -> IdentityError:
    since = None if whose is None else made_at(whose)
    begun = "" if since is None else f" (begun {since:%Y-%m-%d %H:%M} UTC)"
    bears = state if whose is None else f"belongs to log {whose}{begun}"
    known = made_at(log) if log is not None else None
    named = "" if known is None else f" (begun {known:%Y-%m-%d %H:%M} UTC)"
    keeps = "knows no log of that pipeline" if log is None else f"keeps log {log}{named}"
    return IdentityError(
        f"the inbox {path} {bears}, and the database {keeps}: records would be lost between them",
        hint="point HEADWATER_HOME and HEADWATER_DATABASE_URL at the home and the database that belong "
        "together (headwater doctor lists their logs), give the pipeline another name, or, if the home "
        f"of the log is gone, take it over: headwater adopt {path.stem}",
        thing="the inbox",
        where=str(path),
        whose=whose,
        since=since,
        log=log,
    )
