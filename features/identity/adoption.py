"""Adoption: a new inbox takes the place of one that was lost with its home, in the log that is left."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import msgspec
from sqlalchemy import Connection, insert, select, update

from headwater.features.identity.belonging import RETIRED
from headwater.features.record.inbox import Inbox, inbox_file
from headwater.features.record.inbox_identity import read_identity
from headwater.infra.clock import Clock, from_us, to_us
from headwater.infra.commit_points import reached
from headwater.infra.settings import Settings
from headwater.infra.store.audit import note
from headwater.infra.store.database import Database
from headwater.infra.store.identity import Identity
from headwater.infra.store.schema import tables
from headwater.spec.errors import ConflictError

__all__ = ["LostInbox", "adopt_log", "check_adoptable", "has_inbox_of"]


class LostInbox(msgspec.Struct, frozen=True, kw_only=True):
    """How far the inbox of a lost home was read: what it acknowledged behind that is lost.

    Parameters
    ----------
    inbox
        Its id.
    read_to
        The position of its last record that is in the database; 0 if none is.
    received_until
        When the last record that is in the database was received; None if none is.
    """

    inbox: str
    read_to: int
    received_until: datetime | None


def has_inbox_of(pipeline: str, settings: Settings, inboxes: Collection[str]) -> bool:
    """Return whether this home has one of some inboxes: then its database alone is lost.

    Parameters
    ----------
    pipeline, settings
        Whose inbox, and where the home is.
    inboxes
        The ids of those that a log was read from.
    """
    path = inbox_file(pipeline, settings)
    identity = read_identity(path) if path.exists() else None
    return identity is not None and identity.inbox in inboxes


def check_adoptable(database: Database, pipeline_id: int, pipeline: str, settings: Settings) -> None:
    """Refuse to adopt a log into a home that has an inbox with records, or another log's.

    Raises
    ------
    ConflictError
        If it has. Nothing was changed.
    """
    path = inbox_file(pipeline, settings)
    if not path.exists():
        return
    identity = read_identity(path)
    read = tables.inbox_position.c
    with database.reading() as connection:
        known = connection.execute(
            select(read.inbox).where(read.pipeline_id == pipeline_id, ~read.inbox.startswith(RETIRED))
        ).scalars()
        is_known = identity is not None and identity.inbox in set(known)
    if is_known or identity is None or identity.log is not None or _has_records(path):
        state = (
            "is of this log, and not lost" if is_known else "is there, and has records or another log"
        )
        raise ConflictError(
            f"the inbox {path} {state}: there is nothing to adopt into this home",
            hint="go on with it, or set HEADWATER_HOME to a new folder and adopt there",
        )


def adopt_log(
    database: Database,
    pipeline_id: int,
    identity: Identity,
    settings: Settings,
    clock: Clock,
    *,
    by: str,
) -> tuple[LostInbox, ...]:
    """Give a log a new inbox in this home; the lost ones are retired, and refused from now on.

    Whoever comes after a kill between the steps finds a new inbox that the database knows, or does not
    know yet: both are gone on with.

    Parameters
    ----------
    database, pipeline_id, identity
        The log that is left.
    settings, clock
        The new home, and the time.
    by
        Who adopts, for the audit.
    """
    inbox = Inbox(inbox_file(identity.pipeline, settings))
    try:
        with database.transaction() as connection:
            lost = _retire(connection, pipeline_id)
            connection.execute(
                insert(tables.inbox_position).values(
                    pipeline_id=pipeline_id, inbox=inbox.identity.inbox, position=0
                )
            )
            detail = {"inbox": inbox.identity.inbox, "home": str(settings.root), "lost": lost}
            note(connection, to_us(clock.now()), by, "adopt", pipeline_id=pipeline_id, detail=detail)
        reached("begin.after_register")
        inbox.belong_to(identity.log)
        reached("begin.after_belonging")
    finally:
        inbox.close()
    return lost


def _retire(connection: Connection, pipeline_id: int) -> tuple[LostInbox, ...]:
    """Retire the inboxes that the database knows: their rows stay, under ids that no file bears.

    With more than one row the sequencer looks up each record whether another inbox brought it.
    """
    read, place = tables.inbox_position, tables.sequencer.c
    horizon_us = connection.execute(
        select(place.horizon_us).where(place.pipeline_id == pipeline_id)
    ).scalar_one()
    rows = connection.execute(
        select(read.c.inbox, read.c.position).where(
            read.c.pipeline_id == pipeline_id, ~read.c.inbox.startswith(RETIRED)
        )
    ).all()
    for inbox, _ in rows:
        connection.execute(
            update(read)
            .where(read.c.pipeline_id == pipeline_id, read.c.inbox == inbox)
            .values(inbox=f"{RETIRED}{inbox}")
        )
    until = from_us(horizon_us) if horizon_us else None
    return tuple(
        LostInbox(inbox=inbox, read_to=position, received_until=until) for inbox, position in rows
    )


def _has_records(path: Path) -> bool:
    inbox = Inbox(path)
    try:
        return inbox.end() > 0
    finally:
        inbox.close()
