"""The entries of an inbox: rows of its file, stored in transactions that the inbox opens."""

import sqlite3
from collections.abc import Sequence
from itertools import chain, groupby
from typing import get_args

import msgspec
from msgspec.structs import astuple, replace

from headwater.infra.ids import new_id
from headwater.infra.store.sqlite import together
from headwater.spec.data.records import LabelValue, Source
from headwater.spec.errors import ConflictError, few

__all__ = [
    "LABEL",
    "ONE_STATEMENT",
    "PREDICTION",
    "SCHEMA",
    "Entry",
    "InboxRow",
    "any_unkeyed",
    "insert",
    "insert_each",
    "insert_new",
    "label_key",
]

PREDICTION = 0
LABEL = 1

InboxRow = tuple[int, int, str, int, bytes]
"""Position, kind, id, time of receipt in microseconds, payload."""

SCHEMA = (
    """
CREATE TABLE entry (
    position INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    id TEXT NOT NULL,
    key TEXT NOT NULL,
    received_at_us INTEGER NOT NULL,
    payload BLOB NOT NULL
)
""",
    "CREATE UNIQUE INDEX entry_by_id ON entry (id, kind, key)",
)
_NEWEST_OF_SOURCE = (
    "SELECT payload FROM entry WHERE id = ? AND kind = ? AND key > ? AND key < ? "
    "ORDER BY position DESC LIMIT 1"
)
_INSERT = "INSERT INTO entry (kind, id, key, received_at_us, payload) VALUES"
_ROW = "(?, ?, ?, ?, ?)"
_ONCE = "ON CONFLICT DO NOTHING"

ONE_STATEMENT = 64
"""Each number of rows up to this is a statement, kept with the values that it had last."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One record, as the inbox keeps it; storing it gives it a position, rising from 1.

    Parameters
    ----------
    kind
        :data:`PREDICTION` or :data:`LABEL`.
    id
        The prediction's id.
    key
        ``""`` for a prediction; for a label what :func:`label_key` returns.
    received_at_us
        When it was received, in microseconds since 1970, UTC.
    payload
        The record as canonical JSON.
    """

    kind: int
    id: str
    key: str
    received_at_us: int
    payload: bytes


class _Told(msgspec.Struct, gc=False):
    value: LabelValue


_TOLD = msgspec.json.Decoder(_Told)


def label_key(source: Source, key: str = "") -> str:
    """Return the key under which an inbox keeps a label.

    Parameters
    ----------
    source, key
        Who tells it, and the client's key; without a key, :func:`insert` compares the label with the
        last one of its source.
    """
    return f"{source}/{key}"


_UNKEYED = frozenset(label_key(source) for source in get_args(Source))


def any_unkeyed(batches: Sequence[Sequence[Entry]]) -> bool:
    """Return whether there is a label without a key, which takes a look at the stored ones."""
    return any(entry.key in _UNKEYED for batch in batches for entry in batch)


def insert(connection: sqlite3.Connection, entries: Sequence[Entry]) -> int:
    """Insert entries that are not there, and return their number.

    A label without a key is there if the last label of its source has the same value; the caller's
    transaction excludes other writers.

    Raises
    ------
    ConflictError
        If one is there with another payload; the caller rolls back.
    """
    added = 0
    for unkeyed, run in groupby(entries, key=lambda entry: entry.key in _UNKEYED):
        if unkeyed:
            added += sum(_insert_unkeyed(connection, entry) for entry in run)
        else:
            added += _insert_keyed(connection, list(run))
    return added


def _insert_unkeyed(connection: sqlite3.Connection, entry: Entry) -> bool:
    """Insert a label unless it repeats the last one of its source; return whether it was inserted."""
    last = f"{entry.key[:-1]}{chr(ord('/') + 1)}"
    newest = connection.execute(_NEWEST_OF_SOURCE, (entry.id, LABEL, entry.key, last)).fetchone()
    if newest is not None and _TOLD.decode(newest[0]).value == _TOLD.decode(entry.payload).value:
        return False
    insert_new(connection, [astuple(replace(entry, key=f"{entry.key}{new_id()}"))])
    return True


def _insert_keyed(connection: sqlite3.Connection, entries: Sequence[Entry]) -> int:
    before = connection.total_changes
    for statement, values in together(_INSERT, _ROW, list(map(astuple, entries)), _ONCE):
        connection.executemany(statement, values)
    added = connection.total_changes - before
    if added < len(entries):
        _refuse_conflicts(connection, entries)
    return added


def insert_each(
    connection: sqlite3.Connection, batches: Sequence[Sequence[Entry]]
) -> list[int | ConflictError]:
    """Insert each batch whole or not at all, and return how many were new, or why it was refused."""
    ended: list[int | ConflictError] = []
    for batch in batches:
        connection.execute("SAVEPOINT batch")
        try:
            ended.append(insert(connection, batch))
        except ConflictError as error:
            connection.execute("ROLLBACK TO batch")
            ended.append(error)
        connection.execute("RELEASE batch")
    return ended


def insert_new(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows of which none is there; up to :data:`ONE_STATEMENT` of them by one statement.

    Raises
    ------
    sqlite3.IntegrityError
        If one is there.
    """
    if 0 < len(rows) <= ONE_STATEMENT:
        values = list(chain.from_iterable(rows))
        connection.execute(f"{_INSERT} {', '.join([_ROW] * len(rows))}", values)
        return
    for statement, some in together(_INSERT, _ROW, rows):
        connection.executemany(statement, some)


def _refuse_conflicts(connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    conflicts = []
    for entry in entries:
        (stored,) = connection.execute(
            "SELECT payload FROM entry WHERE id = ? AND kind = ? AND key = ?",
            (entry.id, entry.kind, entry.key),
        ).fetchone()
        if stored != entry.payload:
            conflicts.append(entry)
    if not conflicts:
        return
    what = "predictions" if conflicts[0].kind == PREDICTION else "labels"
    raise ConflictError(
        f"{len(conflicts)} {what} came before with another payload: "
        f"{few(entry.id for entry in conflicts)}; nothing of the batch was kept",
        hint="give a new prediction its own id"
        if what == "predictions"
        else "send a changed label with another key, or with none",
    )
