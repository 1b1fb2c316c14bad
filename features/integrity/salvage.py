"""Salvage of an inbox's file in which pages are damaged: it is written anew, with all that is whole.

Entries that lay in a damaged page come from the rows that the database made of them: those between the
rows of the entries before and behind the gap, if they are as many as are missing. An entry that the
database had not read stays away, and is named by the sequencer as lost.
"""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select

from headwater.features.integrity.refill import entries_between
from headwater.features.record.declared import recorded_contents
from headwater.features.record.entries import (
    DECLARATION,
    PREDICTION,
    SCHEMA,
    StoredRow,
    rows_of,
)
from headwater.features.record.imported_files import IMPORTED
from headwater.features.record.inbox_identity import InboxIdentity, restore_identity
from headwater.features.record.inbox_reader import is_whole, refused
from headwater.infra.store.database import Database
from headwater.infra.store.published_file import replacing
from headwater.infra.store.schema import tables
from headwater.infra.store.sqlite import BUSY_S
from headwater.infra.store.turns import alone

__all__ = ["Salvaged", "salvage"]

_AT_ONCE = 5_000
_COLUMNS = "position, kind, id, received_at_us, payload, key, checksum, declaration"
_INSERT = f"INSERT INTO entry ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - ours


class Salvaged(NamedTuple):
    """What was salvaged: entries that were whole, and those that the database gave back."""

    whole: int
    given_back: int


def salvage(path: Path, database: Database, pipeline_id: int) -> Salvaged | None:
    """Write the file of an inbox anew if one of its pages is damaged; return None if none is.

    Parameters
    ----------
    path
        The inbox's file, which nobody else may use meanwhile.
    database, pipeline_id
        Where the rows are that were made of its entries, and whose.

    Raises
    ------
    BusyError
        If a process uses the inbox.
    StorageError
        If it cannot be opened at all, or the disk refuses; the file stays as it is.
    """
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_S)) as damaged:
            if _is_sound(damaged):
                return None
        with (
            alone(path),
            replacing(path) as draft,
            closing(sqlite3.connect(path, timeout=BUSY_S)) as damaged,
            closing(sqlite3.connect(draft)) as fresh,
        ):
            damaged.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # none for the new file
            return _copied(damaged, fresh, database, pipeline_id)
    except (sqlite3.Error, OSError) as error:
        raise refused(path, error) from error


def _is_sound(connection: sqlite3.Connection) -> bool:
    try:
        return connection.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        return False


def _copied(
    damaged: sqlite3.Connection, fresh: sqlite3.Connection, database: Database, pipeline_id: int
) -> Salvaged:
    inbox, log = damaged.execute("SELECT inbox, log FROM identity").fetchone()
    imported = damaged.execute("SELECT * FROM imported").fetchall()
    fresh.execute("PRAGMA page_size = 16384")
    for statement in (*SCHEMA, IMPORTED, DECLARATION):
        fresh.execute(statement)
    _declare(damaged, fresh, database, pipeline_id)
    restore_identity(fresh, InboxIdentity(inbox, log))
    fresh.executemany("INSERT INTO imported VALUES (?, ?, ?)", imported)
    read_to, end = _read_to(database, pipeline_id, inbox)
    whole = 0
    for start in range(0, max(read_to, _last(damaged)) + 1, _AT_ONCE):
        rows = [row for row in _around(damaged, start, start + _AT_ONCE) if is_whole(row)]
        fresh.executemany(_INSERT, rows)
        whole += len(rows)
    away = _lost(database, pipeline_id, inbox)
    filled = sum(
        _fill(fresh, database, pipeline_id, gap)
        for gap in list(_gaps(fresh, imported, away, read_to, end))
    )
    fresh.commit()
    return Salvaged(whole, filled)


def _declare(
    damaged: sqlite3.Connection, fresh: sqlite3.Connection, database: Database, pipeline_id: int
) -> None:
    """Keep what entries were recorded under: of the file, and of the database, which may have more."""
    rows: list[tuple[int, str]] = []
    with suppress(sqlite3.DatabaseError):  # its page is damaged, or it is a file of before
        rows += damaged.execute("SELECT hash, content FROM declaration").fetchall()
    with database.reading() as connection:
        rows += [row[1:] for row in recorded_contents(connection, pipeline_id)]
    fresh.executemany("INSERT OR IGNORE INTO declaration VALUES (?, ?)", rows)


class _Gap(NamedTuple):
    """Positions that are missing, and the entries on both sides; None at the beginning and the end."""

    start: int
    stop: int
    before: StoredRow | None
    behind: StoredRow | None
    end: int


def _gaps(
    fresh: sqlite3.Connection,
    imported: Collection[tuple[str, int, int]],
    away: Collection[int],
    read_to: int,
    end: int,
) -> Iterator[_Gap]:
    elsewhere = set(away)
    for _, first, last in imported:
        elsewhere.update(range(first, last))
    there: list[StoredRow | None] = [None]
    there += fresh.execute(f"SELECT {_COLUMNS} FROM entry WHERE position <= ?", (read_to,)).fetchall()  # noqa: S608
    for before, behind in pairwise([*there, None]):
        start = 1 if before is None else before[0] + 1
        stop = read_to + 1 if behind is None else behind[0]
        if start < stop and not any(position in elsewhere for position in range(start, stop)):
            yield _Gap(start, stop, before, behind, end)


def _fill(fresh: sqlite3.Connection, database: Database, pipeline_id: int, gap: _Gap) -> int:
    first = 0 if gap.before is None else _position(database, pipeline_id, gap.before)
    stop = gap.end if gap.behind is None else _position(database, pipeline_id, gap.behind)
    if first is None or stop is None:
        return 0
    found = entries_between(database, pipeline_id, first, stop)
    entries = found if gap.before is None else found[1:]
    if len(entries) != gap.stop - gap.start:
        return 0
    for position, entry in zip(range(gap.start, gap.stop), entries, strict=True):
        ((kind, id_, key, us, payload, checksum, hash_),) = rows_of([entry])
        fresh.execute(_INSERT, (position, kind, id_, us, payload, key, checksum, hash_))
    return len(entries)


def _position(database: Database, pipeline_id: int, entry: StoredRow) -> int | None:
    """Return the position of the row that was made of an entry; None if there is none."""
    _, kind, id_, _, payload, *_ = entry
    prediction, label = tables.prediction.c, tables.label.c
    of_id = (prediction.pipeline_id == pipeline_id) & (prediction.id == id_)
    with database.reading() as connection:
        of = connection.execute(select(prediction.position).where(of_id)).scalar_one_or_none()
        if kind == PREDICTION:
            return of
        mine = (label.prediction_position == of) | (label.prediction_id == id_)
        query = select(label.position).where(
            label.pipeline_id == pipeline_id, mine, label.payload == payload
        )
        return connection.execute(query.order_by(label.position)).scalars().first()


def _around(damaged: sqlite3.Connection, start: int, stop: int) -> list[StoredRow]:
    """Read a range around damaged pages: halve it until what cannot be read is one entry."""
    query = f"SELECT {_COLUMNS} FROM entry WHERE position >= ? AND position < ?"  # noqa: S608 - ours
    with suppress(sqlite3.DatabaseError):
        return damaged.execute(query, (start, stop)).fetchall()
    if stop - start <= 1:
        return []
    middle = (start + stop) // 2
    return _around(damaged, start, middle) + _around(damaged, middle, stop)


def _last(damaged: sqlite3.Connection) -> int:
    with suppress(sqlite3.DatabaseError):
        return int(damaged.execute("SELECT coalesce(max(position), 0) FROM entry").fetchone()[0])
    return 0


def _read_to(database: Database, pipeline_id: int, inbox: str) -> tuple[int, int]:
    """Return the inbox's position up to which the database has read, and its own next position."""
    read, place = tables.inbox_position.c, tables.sequencer.c
    with database.reading() as connection:
        of_mine = (read.pipeline_id == pipeline_id) & (read.inbox == inbox)
        read_to = connection.execute(select(read.position).where(of_mine)).scalar_one_or_none()
        end = connection.execute(
            select(place.next_position).where(place.pipeline_id == pipeline_id)
        ).scalar_one_or_none()
    return read_to or 0, end or 0


def _lost(database: Database, pipeline_id: int, inbox: str) -> list[int]:
    table = tables.lost_entry.c
    query = select(table.position).where(table.pipeline_id == pipeline_id, table.inbox == inbox)
    with database.reading() as connection:
        return list(connection.execute(query).scalars())
