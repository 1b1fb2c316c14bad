"""Mending of damaged entries of an inbox, from the rows that the database made of them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from sqlalchemy import Connection, select

from headwater.features.record.entries import PREDICTION
from headwater.features.record.inbox import Inbox
from headwater.features.record.inbox_reader import stands_in
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.spec.data.checksum import entry_checksum, payload_crc
from headwater.spec.errors import StorageError

__all__ = ["lost_positions", "mend_inbox", "unmended"]


def mend_inbox(
    database: Database,
    pipeline_id: int,
    inbox: Inbox,
    positions: Sequence[int],
    *,
    removes_lost: bool = False,
) -> list[int]:
    """Mend damaged entries of an inbox, and return the positions that were mended.

    A copy counts only if the entry's own checksum holds for it.

    Parameters
    ----------
    database, pipeline_id, inbox
        Where the copies are, whose, and what is damaged.
    positions
        Of the damaged entries.
    removes_lost
        Whether entries that were damaged before they were sequenced, and so are lost, are removed.
    """
    lost, mended = lost_positions(database, pipeline_id, inbox), []
    for position in positions:
        with suppress(StorageError):  # its page is damaged: it stays so
            row = inbox.damaged_row(position)
            if row is None or stands_in(row):
                continue
            _, kind, id_, us, _, key, checksum, hash_ = row
            if position in lost and removes_lost:
                inbox.mend(position, None)
                mended.append(position)
                continue
            with database.reading() as connection:
                for payload in _copies(connection, pipeline_id, kind, id_):
                    crc = payload_crc(payload)
                    if entry_checksum(kind, id_, key, us, crc, hash_) == checksum:
                        inbox.mend(position, payload)
                        mended.append(position)
                        break
    return mended


def unmended(database: Database, pipeline_id: int, inbox: Inbox, positions: Sequence[int]) -> list[int]:
    """Return the positions that are damaged still, without those that were lost, and removed since."""
    if not positions:
        return []
    lost = lost_positions(database, pipeline_id, inbox)
    return [
        position for position in positions if position not in lost or not _is_absent(inbox, position)
    ]


def lost_positions(database: Database, pipeline_id: int, inbox: Inbox) -> frozenset[int]:
    """Return the positions of the entries that were damaged before they were sequenced."""
    table = tables.lost_entry.c
    query = select(table.position).where(
        table.pipeline_id == pipeline_id, table.inbox == inbox.identity.inbox
    )
    with database.reading() as connection:
        return frozenset(connection.execute(query).scalars())


def _is_absent(inbox: Inbox, position: int) -> bool:
    try:
        row = inbox.damaged_row(position)
    except StorageError:
        return False
    return row is None or stands_in(row)


def _copies(connection: Connection, pipeline_id: int, kind: int, id_: str) -> Iterator[bytes]:
    """Yield the payloads that the database has of a prediction's records of a kind."""
    prediction, label = tables.prediction.c, tables.label.c
    query = select(prediction.position, prediction.payload).where(
        prediction.pipeline_id == pipeline_id, prediction.id == id_
    )
    position, payload = connection.execute(query).one_or_none() or (None, None)
    if kind == PREDICTION:
        if isinstance(payload, bytes):
            yield payload
        return
    of = (label.prediction_position == position) | (label.prediction_id == id_)
    labels = select(label.payload).where(label.pipeline_id == pipeline_id, of)
    for (one,) in connection.execute(labels).all():
        if isinstance(one, bytes):
            yield one
