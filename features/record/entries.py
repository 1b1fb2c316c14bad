"""The entries of an inbox: rows of its file, stored in transactions that the inbox opens."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain, groupby
from typing import Protocol, get_args

import msgspec
from msgspec.structs import astuple, replace

from headwater.features.values.same_prediction import is_same_prediction
from headwater.infra.ids import new_id
from headwater.infra.store.sqlite import together
from headwater.spec.data.checksum import entry_checksum, payload_crc
from headwater.spec.data.records import LabelValue, Source
from headwater.spec.errors import ConflictError, few

__all__ = [
    "DECLARATION",
    "LABEL",
    "ONE_STATEMENT",
    "PREDICTION",
    "SCHEMA",
    "Elsewhere",
    "Entry",
    "EntryRow",
    "InboxRow",
    "StoredRow",
    "any_unkeyed",
    "conflicts_among",
    "has_any",
    "insert",
    "insert_all",
    "insert_each",
    "insert_new",
    "known_payloads",
    "label_key",
    "newest_of_source",
    "refuse",
    "rows_of",
]

EntryRow = tuple[int, str, str, int, bytes, int, int | None]
"""Kind, id, key, time of receipt, payload, checksum, and the hash of the entry's declaration."""

PREDICTION = 0
LABEL = 1

InboxRow = tuple[int, int, str, int, bytes]
"""Position, kind, id, time of receipt in microseconds, payload."""

StoredRow = tuple[int, int, str, int, bytes, str, int | None, int | None]
"""The same as a file holds it, with its key, its checksum and the hash of its declaration.

The last two are None for an entry of before those.
"""

SCHEMA = (
    """
CREATE TABLE entry (
    position INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    id TEXT NOT NULL,
    key TEXT NOT NULL,
    received_at_us INTEGER NOT NULL,
    payload BLOB NOT NULL,
    checksum INTEGER,
    declaration INTEGER
)
""",
    "CREATE UNIQUE INDEX entry_by_id ON entry (id, kind, key)",
)
_NEWEST_OF_SOURCE = (
    "SELECT position, payload FROM entry WHERE id = ? AND kind = ? AND key > ? AND key < ? "
    "ORDER BY position DESC LIMIT 1"
)
DECLARATION = """
CREATE TABLE IF NOT EXISTS declaration (
    hash INTEGER PRIMARY KEY,
    content TEXT NOT NULL
)
"""
"""What the entries were recorded under, by the hash that they bear; never changed."""

_INSERT = "INSERT INTO entry (kind, id, key, received_at_us, payload, checksum, declaration) VALUES"
_ROW = "(?, ?, ?, ?, ?, ?, ?)"
_ONCE = "ON CONFLICT DO NOTHING"
_INSERT_FROM = f"{_INSERT.removesuffix('VALUES')} SELECT * FROM"
_LOOKED_UP = 500

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
    declaration
        The hash of the declaration that it was recorded under; beside the payload, so that a record
        that is sent again after a roll-out is the same one.
    """

    kind: int
    id: str
    key: str
    received_at_us: int
    payload: bytes
    declaration: int | None = None

    @property
    def identity(self) -> tuple[str, int, str]:
        """Id, kind and key: an inbox holds them once."""
        return self.id, self.kind, self.key


def rows_of(entries: Iterable[Entry]) -> list[EntryRow]:
    """Return entries as rows, each with the checksum by which damage is found."""
    return [
        (kind, id_, key, us, payload, entry_checksum(kind, id_, key, us, payload_crc(payload), d), d)
        for kind, id_, key, us, payload, d in map(astuple, entries)
    ]


class _StoredValue(msgspec.Struct, gc=False):
    value: LabelValue


_STORED_VALUE = msgspec.json.Decoder(_StoredValue)


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


class Elsewhere(Protocol):
    """The files of an inbox beside its own: what they hold is there, too."""

    def unknown(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return the entries that no file holds, or refuse those that one holds with another payload."""
        ...

    def newest_of_source(self, label: Entry) -> tuple[int, bytes] | None:
        """Return position and payload of the newest label of a label's prediction and source."""
        ...


def insert(connection: sqlite3.Connection, entries: Sequence[Entry], elsewhere: Elsewhere) -> int:
    """Insert entries that are not there, and return their number.

    A label without a key is there if the last label of its source has the same value; the caller's
    transaction excludes other writers.

    Parameters
    ----------
    connection, entries
        Where to, and what.
    elsewhere
        Where they may be, too.

    Raises
    ------
    ConflictError
        If one is there with another payload; the caller rolls back.
    """
    added = 0
    for unkeyed, run in groupby(elsewhere.unknown(entries), key=lambda entry: entry.key in _UNKEYED):
        if unkeyed:
            added += sum(_insert_unkeyed(connection, entry, elsewhere) for entry in run)
        else:
            added += _insert_keyed(connection, list(run))
    return added


def newest_of_source(connection: sqlite3.Connection, label: Entry) -> tuple[int, bytes] | None:
    """Return position and payload of the newest label of a label's prediction and source in a file."""
    last = f"{label.key[:-1]}{chr(ord('/') + 1)}"
    found: tuple[int, bytes] | None = connection.execute(
        _NEWEST_OF_SOURCE, (label.id, LABEL, label.key, last)
    ).fetchone()
    return found


def _insert_unkeyed(connection: sqlite3.Connection, label: Entry, elsewhere: Elsewhere) -> bool:
    """Insert a label unless it repeats the last one of its source; return whether it was inserted."""
    found = [newest_of_source(connection, label), elsewhere.newest_of_source(label)]
    _, newest = max((one for one in found if one is not None), default=(0, None))
    if newest is not None and _value_of(newest) == _value_of(label.payload):
        return False
    insert_all(connection, rows_of([replace(label, key=f"{label.key}{new_id()}")]))
    return True


def _value_of(payload: bytes) -> LabelValue | None:
    """Return a stored label's value; None if the label is damaged."""
    try:
        return _STORED_VALUE.decode(payload).value
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _insert_keyed(connection: sqlite3.Connection, entries: Sequence[Entry]) -> int:
    before = connection.total_changes
    for statement, values in together(_INSERT, _ROW, rows_of(entries), _ONCE):
        connection.executemany(statement, values)
    added = connection.total_changes - before
    if added < len(entries):
        _refuse_conflicts(connection, entries)
    return added


def insert_each(
    connection: sqlite3.Connection,
    batches: Sequence[Sequence[Entry]],
    elsewhere: Elsewhere,
) -> list[int | ConflictError]:
    """Insert each batch whole or not at all, and return how many were new, or why it was refused.

    Parameters
    ----------
    connection, batches
        Where to, and what.
    elsewhere
        Where they may be, too.
    """
    ended: list[int | ConflictError] = []
    for batch in batches:
        connection.execute("SAVEPOINT batch")
        try:
            ended.append(insert(connection, batch, elsewhere))
        except ConflictError as error:
            connection.execute("ROLLBACK TO batch")
            ended.append(error)
        connection.execute("RELEASE batch")
    return ended


def insert_all(
    connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]], table: str = "entry"
) -> None:
    """Insert rows of which none is there.

    Raises
    ------
    sqlite3.IntegrityError
        If one is there.
    """
    for statement, some in together(_INSERT.replace("entry", table), _ROW, rows):
        connection.executemany(statement, some)


def insert_new(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> bool:
    """Insert rows of which none is there by one statement; they are at most :data:`ONE_STATEMENT`.

    Returns
    -------
    bool
        Whether they were inserted; not where a file is imported, which may hold them.

    Raises
    ------
    sqlite3.IntegrityError
        If one is there.
    """
    values = list(chain.from_iterable(rows))
    return connection.execute(_one_statement(len(rows)), values).rowcount == len(rows)


def known_payloads(
    connection: sqlite3.Connection, entries: Sequence[Entry]
) -> dict[tuple[str, int, str], bytes]:
    """Return the payloads that a file holds under the ids, kinds and keys of entries."""
    wanted = {entry.identity for entry in entries}
    ids = sorted({entry.id for entry in entries})
    known: dict[tuple[str, int, str], bytes] = {}
    for start in range(0, len(ids), _LOOKED_UP):
        some = ids[start : start + _LOOKED_UP]
        places = ", ".join("?" * len(some))
        for id_, kind, key, payload in connection.execute(
            f"SELECT id, kind, key, payload FROM entry WHERE id IN ({places})",  # noqa: S608 - places
            some,
        ):
            if (id_, kind, key) in wanted:
                known[id_, kind, key] = payload
    return known


def has_any(connection: sqlite3.Connection, ids: Sequence[str]) -> bool:
    """Return whether a file holds a record of one of some predictions."""
    for start in range(0, len(ids), _LOOKED_UP):
        some = ids[start : start + _LOOKED_UP]
        found = connection.execute(_has_any(len(some)), some).fetchone()
        if found is not None:
            return True
    return False


def conflicts_among(
    entries: Sequence[Entry], known: Mapping[tuple[str, int, str], bytes]
) -> list[Entry]:
    """Return the entries that are known with another payload.

    A feature that was declared since is null in a prediction that is sent again: that makes no other.
    """
    other = [
        (entry, known[entry.identity])
        for entry in entries
        if known.get(entry.identity, entry.payload) != entry.payload
    ]
    return [
        entry
        for entry, payload in other
        if entry.kind != PREDICTION or not is_same_prediction(entry.payload, payload)
    ]


def refuse(conflicts: Sequence[Entry]) -> None:
    """Refuse entries that came before with another payload, if there are any.

    Raises
    ------
    ConflictError
        It names some.
    """
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


def _refuse_conflicts(connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    refuse(conflicts_among(entries, known_payloads(connection, entries)))


@cache
def _has_any(ids: int) -> str:
    return f"SELECT 1 FROM entry WHERE id IN ({', '.join('?' * ids)}) LIMIT 1"  # noqa: S608 - places


@cache
def _one_statement(rows: int) -> str:
    """Return a statement that inserts rows, or none of them where a file is imported."""
    places = ", ".join([_ROW] * rows)
    return f"{_INSERT_FROM} (VALUES {places}) WHERE NOT EXISTS (SELECT 1 FROM imported)"  # noqa: S608 - ours
