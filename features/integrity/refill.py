"""Refill of an inbox that lost its newest entries, from the rows that the database made of them."""

from operator import itemgetter

import msgspec
from sqlalchemy import func, select

from headwater.features.read.stored_rows import StoredRows
from headwater.features.record.declared import recorded_contents
from headwater.features.record.entries import LABEL, PREDICTION, Entry, label_key
from headwater.features.record.inbox import Inbox
from headwater.infra.ids import new_id
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.spec.data.records import Source

__all__ = ["entries_between", "refill"]

_BESIDE = 10_000  # rows that no entry made, among the newest ones: timeouts, say


class _Stored(msgspec.Struct):
    """What tells an entry: of a prediction its id, of a label its prediction's id, source and key."""

    id: str = ""
    prediction_id: str = ""
    source: Source = "natural"
    key: str | None = None
    instead_of: int | None = None


_STORED = msgspec.json.Decoder(_Stored)


def refill(database: Database, pipeline_id: int, inbox: Inbox) -> int:
    """Append the entries that the database has read and the inbox has lost; return how many.

    That is so after its write-ahead log was cut, or an older copy was put in its place. Nothing is
    appended unless the rows behind the inbox's last entry are as many as are missing.

    Parameters
    ----------
    database, pipeline_id, inbox
        Where the rows are, whose, and what lost entries.

    Raises
    ------
    StorageError
        If a store is away, or refuses.
    """
    read, place = tables.inbox_position.c, tables.sequencer.c
    with database.reading() as connection:
        of_mine = read.pipeline_id == pipeline_id
        count = connection.execute(select(func.count()).where(of_mine)).scalar_one()
        read_to = connection.execute(
            select(read.position).where(of_mine, read.inbox == inbox.identity.inbox)
        ).scalar_one_or_none()
        end = connection.execute(
            select(place.next_position).where(place.pipeline_id == pipeline_id)
        ).scalar_one()
    missing = 0 if read_to is None else read_to - inbox.end()
    if missing <= 0 or count != 1:  # rows do not say by which inbox they came
        return 0
    entries = entries_between(database, pipeline_id, end - missing - _BESIDE, end)
    lost, before = entries[-missing:], entries[: -missing or None][-1:]
    newest = inbox.read(inbox.end() - 1, 1)
    if len(lost) != missing or [row[4] for row in newest] != [entry.payload for entry in before]:
        return 0
    with database.reading() as connection:
        contents = recorded_contents(connection, pipeline_id)
    for _, hash_, content in contents:
        inbox.declare(hash_, content)
    return inbox.append(lost, "record")


def entries_between(database: Database, pipeline_id: int, start: int, stop: int) -> list[Entry]:
    """Return the entries of which the rows of a range of positions were made, in order."""
    rows = StoredRows(database, pipeline_id)
    with database.reading() as connection:
        hashes = {number: hash_ for number, hash_, _ in recorded_contents(connection, pipeline_id)}
    found: list[tuple[int, int, int, bytes, int | None]] = [
        (position, PREDICTION, us, payload, by)
        for position, us, payload, by in rows.predictions(max(0, start), stop)
    ]
    found += [
        (position, LABEL, us, payload, None)
        for position, _, us, _, payload, _ in rows.labels(max(0, start), stop)
    ]
    entries = []
    for _, kind, us, payload, by in sorted(found, key=itemgetter(0)):
        stored = _STORED.decode(payload)
        if kind == PREDICTION:
            hash_ = None if by is None else hashes[by]
            entries.append(Entry(PREDICTION, stored.id, "", us, payload, hash_))
        elif stored.source != "timeout" and stored.instead_of is None:
            key = label_key(stored.source, new_id() if stored.key is None else stored.key)
            entries.append(Entry(LABEL, stored.prediction_id, key, us, payload))
    return entries
