"""What a collect leaves on storage beside the tables, so that they suffice if the database is lost.

The tables hold the records. They say neither by which declaration these are read and joined, nor how far
the sequencer was, nor what people ruled on them; nor could damage of a table be found without its seals.
"""

from typing import Any

import msgspec
from sqlalchemy import Connection, Table, select

from headwater.features.identity.belonging import RETIRED
from headwater.infra.store.database import Database
from headwater.infra.store.schema import declaration_tables, tables
from headwater.infra.store.storage import Storage
from headwater.spec.errors import TableError

__all__ = ["KEPT_TABLES", "KeptLog", "KeptSeal", "find_kept", "keep", "read_log"]

_FILE = "kept.json"

KEPT_TABLES = {
    "quarantine": tables.quarantine,
    "label_class": tables.label_class,
    "declaration": declaration_tables.declaration,
    "declared": declaration_tables.declared,
    "recorded_by": declaration_tables.recorded_by,
}
"""Rows that are kept as they are: what people ruled and said, without which others would be learned."""


class KeptSeal(msgspec.Struct, frozen=True, array_like=True):
    """A file of a table: the table's name, its path, size and checksum."""

    table: str
    path: str
    size_bytes: int
    checksum: int


class KeptLog(msgspec.Struct, frozen=True, kw_only=True):
    """A log as it was at a collect.

    Parameters
    ----------
    log, declaration
        Its id, and the declaration in force, as JSON.
    position, offset
        Where the tables stop: examples below that offset are those of the records below that position.
    horizon_us, expired
        The sequencer's row, not later than the tables.
    inboxes
        The position up to which each inbox was read that is not retired.
    rows
        The rows of :data:`KEPT_TABLES`, without their pipeline's number.
    seals
        Of the files that the tables had.
    """

    log: str
    declaration: str
    position: int
    offset: int
    horizon_us: int
    expired: int
    inboxes: dict[str, int]
    rows: dict[str, list[list[Any]]]
    seals: tuple[KeptSeal, ...] = ()


def read_log(database: Database, pipeline_id: int) -> KeptLog:
    """Return a log as the database has it at this moment, without seals."""
    pipeline, place, read = tables.pipeline.c, tables.sequencer.c, tables.inbox_position.c
    with database.reading() as connection:
        log, declaration = connection.execute(
            select(tables.log.c.uuid, pipeline.declaration)
            .join(tables.log, tables.log.c.pipeline_id == pipeline.id)
            .where(pipeline.id == pipeline_id)
        ).one()
        state = connection.execute(
            select(place.next_position, place.next_offset, place.horizon_us, place.expired).where(
                place.pipeline_id == pipeline_id
            )
        ).one()
        inboxes = connection.execute(
            select(read.inbox, read.position).where(
                read.pipeline_id == pipeline_id, ~read.inbox.startswith(RETIRED)
            )
        ).tuples()
        return KeptLog(
            log=log,
            declaration=declaration,
            position=state.next_position,
            offset=state.next_offset,
            horizon_us=state.horizon_us,
            expired=state.expired,
            inboxes=dict(inboxes.all()),
            rows={name: _rows(connection, t, pipeline_id) for name, t in KEPT_TABLES.items()},
        )


def keep(kept: KeptLog, database: Database, pipeline_id: int, pipeline: str, storage: Storage) -> None:
    """Write a log to storage, with the seals that the database has now.

    Raises
    ------
    StorageError
        If storage is away or refuses; what was kept before stays.
    """
    row = tables.archive_file.c
    query = select(row.table_name, row.path, row.size_bytes, row.checksum).where(
        row.pipeline_id == pipeline_id, row.replaced_at_us.is_(None)
    )
    with database.reading() as connection:
        seals = tuple(KeptSeal(*values) for values in connection.execute(query).tuples())
    storage.write(
        msgspec.json.encode(msgspec.structs.replace(kept, seals=seals)), "tables", pipeline, _FILE
    )


def find_kept(storage: Storage, pipeline: str) -> KeptLog | None:
    """Return what the last collect left; None if there is nothing.

    Raises
    ------
    TableError
        If it is damaged.
    """
    content = storage.find("tables", pipeline, _FILE)
    if content is None:
        return None
    try:
        return msgspec.json.decode(content, type=KeptLog)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TableError(
            f"{storage.address('tables', pipeline, _FILE)} is damaged: {error}",
            hint="put an earlier copy of it back, if the storage keeps versions of files",
        ) from error


def _rows(connection: Connection, table: Table, pipeline_id: int) -> list[list[Any]]:
    columns = [column for column in table.columns if column.name != "pipeline_id"]
    query = select(*columns).where(table.c.pipeline_id == pipeline_id)
    return [list(row) for row in connection.execute(query.order_by(*table.primary_key.columns))]
