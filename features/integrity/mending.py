"""Mending of damaged predictions and labels in the database, from the inbox that they came by."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from headwater.features.identity.recorded_by import RecordedBy
from headwater.features.record.entries import LABEL, PREDICTION
from headwater.features.record.inbox import Inbox
from headwater.features.sequence.recorded_rules import RecordedRules
from headwater.infra.store.database import Database, is_damage
from headwater.infra.store.schema import tables
from headwater.spec.data.checksum import label_checksum, payload_crc, prediction_checksum
from headwater.spec.errors import DamagedError, StorageError

__all__ = ["mend"]


def mend(database: Database, pipeline_id: int, inbox: Inbox, positions: Sequence[int]) -> list[int]:
    """Mend damaged rows of the database, and return the positions that were mended.

    The inbox has each record once more. A copy counts as the row's own only if the row's checksum holds
    for it: of a row whose checksum or time is damaged, both must have the same record.

    Parameters
    ----------
    database, pipeline_id, inbox
        Where the rows are, whose, and where the copies are.
    positions
        Of the damaged rows.

    Raises
    ------
    StorageError
        If the database is away, or refuses to write.
    """
    mended = []
    for position in positions:
        try:
            with database.transaction() as connection:
                if _mend_prediction(connection, pipeline_id, inbox, position) or _mend_label(
                    connection, pipeline_id, inbox, position
                ):
                    mended.append(position)
        except StorageError as error:
            if not is_damage(error):
                raise  # else its page is damaged: it cannot be written there
    return mended


def _mend_prediction(connection: Connection, pipeline_id: int, inbox: Inbox, position: int) -> bool:
    table = tables.prediction
    mine = (table.c.pipeline_id == pipeline_id) & (table.c.position == position)
    row = connection.execute(select(table).where(mine)).one_or_none()
    if row is None:
        return False
    numbers, rules = RecordedBy(pipeline_id, inbox), RecordedRules(pipeline_id)
    for received_us, payload, hash_ in _copies(inbox, row.id, PREDICTION):
        by = numbers.numbers(connection, [hash_], received_us)[hash_]
        for us in (row.effective_at_us, received_us):
            due_us = rules.named_due_us(connection, by, payload, us)
            checksum = prediction_checksum(position, row.id, us, payload_crc(payload), by, due_us)
            if checksum == row.checksum or (us == received_us and payload == row.payload):
                values: dict[str, Any] = {
                    "effective_at_us": us,
                    "payload": payload,
                    "recorded_by": by,
                    "due_us": due_us,
                    "checksum": checksum,
                }
                connection.execute(update(table).where(mine).values(values))
                return True
    return False


def _mend_label(connection: Connection, pipeline_id: int, inbox: Inbox, position: int) -> bool:
    table, prediction = tables.label, tables.prediction
    mine = (table.c.pipeline_id == pipeline_id) & (table.c.position == position)
    row = connection.execute(select(table).where(mine)).one_or_none()
    if row is None:
        return False
    id_ = row.prediction_id
    if row.prediction_position is not None:
        at = prediction.c.position == row.prediction_position
        id_ = connection.execute(
            select(prediction.c.id).where(prediction.c.pipeline_id == pipeline_id, at)
        ).scalar_one_or_none()
    of = row.prediction_id if row.prediction_position is None else row.prediction_position
    for received_us, payload, _ in () if id_ is None else _copies(inbox, id_, LABEL):
        for us in (row.effective_at_us, received_us):
            checksum = label_checksum(position, of, row.revision, us, row.late, payload_crc(payload))
            if checksum == row.checksum or (us == received_us and payload == row.payload):
                values = {"effective_at_us": us, "payload": payload}
                connection.execute(update(table).where(mine).values(checksum=checksum, **values))
                return True
    return False


def _copies(inbox: Inbox, id_: str, kind: int) -> Iterator[tuple[int, bytes, int | None]]:
    """Yield time of receipt, payload and declaration of a prediction's entries of a kind, if whole."""
    try:
        entries = inbox.entries_of(id_)
    except DamagedError:
        return
    for of_kind, received_us, payload, hash_ in entries:
        if of_kind == kind:
            yield received_us, payload, hash_
