"""The rows of a log, put into an empty database from the archive: for a database that is lost.

The archive has every column of a record, so that its payload is written again as it was. What an example
names by position is found by the prediction's id and the label's revision.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from zlib import crc32

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError
from msgspec.structs import astuple
from sqlalchemy import Connection, func, insert, select

from headwater.features.identity.kept_log import KEPT_TABLES, KeptLog
from headwater.features.integrity.archived_rows import label_of, prediction_of
from headwater.features.read.archive import Archive, Archived
from headwater.features.read.frames import EXAMPLE, PREDICTION, Frames
from headwater.features.sequence.deadlines import reopen
from headwater.features.sequence.join_records import (
    NewExample,
    example_rows,
    label_rows,
    prediction_rows,
)
from headwater.features.sequence.recorded_rules import RecordedRules
from headwater.features.values.projection import stored_columns
from headwater.infra.store.database import insert_many
from headwater.infra.store.schema import tables
from headwater.spec.declaration import Declaration
from headwater.spec.errors import TableError
from headwater.spec.recipe import OffsetRange

__all__ = ["ArchivedLog"]

_CHUNK = 20_000
_LOOKED_UP = 1_000
_TIME = pl.Datetime("us", "UTC")


class ArchivedLog:
    """The log that an archive holds, up to the last whole collect.

    Parameters
    ----------
    archive
        Its tables.
    kept
        What that collect left beside them.
    """

    def __init__(self, archive: Archive, kept: KeptLog) -> None:
        self._archive = archive
        self._kept = kept
        declaration = Declaration.from_json(kept.declaration)
        self._declarations = _recorded_under(kept) or {0: declaration.as_recorded}
        self._frames = Frames(declaration.task, lambda: self._declarations)

    def check(self) -> None:
        """Check that the tables reach as far as the last collect, and hold each file to its seal.

        Raises
        ------
        IdentityError
            If a table belongs to another log.
        TableError
            If one is damaged, or ends before; the error names it.
        StorageError
            If storage is away.
        """
        self._archive.check()
        for name, end in self._ends().items():
            table = self._archive[name]
            if (stop := table.stop()) < end:
                raise TableError(
                    f"table {name!r} at {table.address} stops at {stop}, and the last collect had "
                    f"written it up to {end}",
                    hint="put the missing files back, if the storage keeps versions of files",
                )
            self._check_files(name)

    def cut(self) -> None:
        """Remove what a collect wrote that was killed before its end: its records are not all there.

        Raises
        ------
        TableError
            If a table cannot be written.
        """
        app, storage = f"headwater/{self._kept.log}", self._archive.storage
        for name, end in self._ends().items():
            table = self._archive[name]
            if table.stop() <= end:
                continue
            key = "offset" if name == "examples" else "position"
            commit = CommitProperties(app_transactions=[Transaction(app, end)], max_commit_retries=0)
            try:
                opened = DeltaTable(table.address, storage_options=storage.options)
                opened.delete(f"{key} >= {end}", commit_properties=commit)
            except (DeltaError, OSError) as error:
                raise TableError(
                    f"table {name!r} at {table.address} cannot be cut at {end}: {error}",
                    hint="check the storage, then adopt again",
                ) from error

    def write(self, connection: Connection) -> int:
        """Put the log into a database that has none of that name; return its number there.

        All of it is in the caller's transaction; a part of a table is in memory at a time.

        Raises
        ------
        TableError, StorageError
            If a table cannot be read, or a record is not there.
        """
        kept = self._kept
        id_ = self._register(connection)
        for name, table in KEPT_TABLES.items():
            insert_many(connection, table, [(id_, *row) for row in kept.rows.get(name, ())])
        last_us = kept.horizon_us
        for start, stop in _parts(kept.position):
            last_us = max(last_us, self._write_records(connection, id_, start, stop))
        for start, stop in _parts(kept.offset):
            self._write_examples(connection, id_, start, stop)
        there = {name: self._archive[name].list_files() for name in self._ends()}
        insert_many(
            connection,
            tables.archive_file,
            [
                (id_, *astuple(seal), None)
                for seal in kept.seals
                if seal.path in there[_name(seal.table)]
            ],
        )
        connection.execute(
            insert(tables.sequencer).values(
                pipeline_id=id_,
                next_position=kept.position,
                next_offset=kept.offset,
                horizon_us=last_us,
                parked=_parked(connection, id_),
                expired=kept.expired,
            )
        )
        return id_

    def _ends(self) -> dict[Archived, int]:
        position = self._kept.position
        return {"predictions": position, "labels": position, "examples": self._kept.offset}

    def _check_files(self, name: Archived) -> None:
        table, storage = self._archive[name], self._archive.storage
        seals = {seal.path: seal for seal in self._kept.seals if seal.table == name}
        place = ("tables", self._archive.claim.pipeline, name)
        for path, size in table.list_files().items():
            content = storage.find(*place, *path.split("/"))
            seal = seals.get(path)
            whole = content is not None and len(content) == size
            if not whole or (seal is not None and crc32(content or b"") != seal.checksum):
                raise TableError(
                    f"{table.address}/{path} is damaged",
                    hint="put an earlier copy of it back, if the storage keeps versions of files",
                )

    def _register(self, connection: Connection) -> int:
        kept, name = self._kept, self._archive.claim.pipeline
        id_ = connection.execute(
            insert(tables.pipeline)
            .values(name=name, declaration=kept.declaration)
            .returning(tables.pipeline.c.id)
        ).scalar_one()
        connection.execute(insert(tables.log).values(pipeline_id=id_, uuid=kept.log))
        rows = [(id_, inbox, position) for inbox, position in kept.inboxes.items()]
        insert_many(connection, tables.inbox_position, rows)
        return int(id_)

    def _write_records(self, connection: Connection, id_: int, start: int, stop: int) -> int:
        """Write the records of a range of positions; return the newest time of receipt."""
        columns = stored_columns(self._declarations)
        predictions = [
            prediction_of(row, self._declarations, columns)
            for row in self._rows("predictions", start, stop)
        ]
        raw = list(self._rows("labels", start, stop))
        if len(predictions) + len(raw) != stop - start:
            raise TableError(
                f"{stop - start - len(predictions) - len(raw)} of the records [{start}, {stop}) of "
                f"{self._archive.claim.pipeline!r} are not in the archive",
                hint="put its files back, if the storage keeps versions of files",
            )
        rules = RecordedRules(id_, self._declarations[min(self._declarations)].label)
        predictions = reopen(connection, id_, predictions, rules, self._kept.horizon_us)
        insert_many(connection, tables.prediction, prediction_rows(id_, predictions))
        places = _positions(connection, id_, [row["prediction_id"] for row in raw])
        labels = [label_of(row, places.get(row["prediction_id"])) for row in raw]
        insert_many(connection, tables.label, label_rows(id_, labels))
        times = [row.effective_at_us for row in predictions] + [row.effective_at_us for row in labels]
        return max(times)

    def _write_examples(self, connection: Connection, id_: int, start: int, stop: int) -> None:
        rows = list(self._rows("examples", start, stop))
        names = [row["prediction_id"] for row in rows]
        places = _positions(connection, id_, names)
        labels = _labels(connection, id_, names, places)
        examples = []
        for row in rows:
            prediction = places.get(row["prediction_id"])
            label = labels.get((row["prediction_id"], row["revision"]))
            if prediction is None or label is None:
                raise TableError(
                    f"example {row['offset']} of {self._archive.claim.pipeline!r} is of records that "
                    "the archive does not hold",
                    hint="put its files back, if the storage keeps versions of files",
                )
            made = NewExample(row["offset"], prediction, label, row["emitted_at"], row["supersedes"])
            examples.append(made)
        insert_many(connection, tables.example, example_rows(id_, examples))

    def _rows(self, name: Archived, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of a range, times in microseconds."""
        frame = self._archive[name].read(OffsetRange(start, stop), self._schema(name))
        times = [column for column, dtype in frame.schema.items() if dtype == _TIME]
        yield from frame.with_columns(pl.col(times).dt.epoch("us")).iter_rows(named=True)

    def _schema(self, name: Archived) -> dict[str, pl.DataType]:
        if name == "examples":
            wanted = ("offset", "emitted_at", "supersedes", "revision", "prediction_id")
            return self._frames.schema([column for column in EXAMPLE if column in wanted])
        if name == "predictions":
            names, times = ("recorded_by", *PREDICTION), {"recorded_at": _TIME, "due_at": _TIME}
            return {"position": pl.Int64()} | times | self._frames.schema(names)
        label = ("prediction_id", "revision", "late", "label", "source", "key", "known_at", "by")
        flags = {"on_receipt": pl.Boolean(), "held": pl.Boolean(), "instead_of": pl.Int64()}
        return {"position": pl.Int64(), "received_at": _TIME} | self._frames.schema(label) | flags


def _recorded_under(kept: KeptLog) -> dict[int, Declaration]:
    """Return what records were recorded under, by number."""
    return {
        number: Declaration.from_json(content)
        for number, _, content, _ in kept.rows.get("recorded_by", ())
    }


def _name(table: str) -> Archived:
    return next(name for name in ("predictions", "labels", "examples") if name == table)


def _parts(stop: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _CHUNK, stop)) for start in range(0, stop, _CHUNK))


def _positions(connection: Connection, id_: int, names: Sequence[str]) -> dict[str, int]:
    """Return the positions of the predictions of some ids that are there."""
    table, distinct = tables.prediction.c, sorted(set(names))
    found: dict[str, int] = {}
    for start in range(0, len(distinct), _LOOKED_UP):
        query = select(table.id, table.position).where(
            table.pipeline_id == id_, table.id.in_(distinct[start : start + _LOOKED_UP])
        )
        found.update(connection.execute(query).tuples().all())
    return found


def _labels(
    connection: Connection, id_: int, names: Sequence[str], places: Mapping[str, int]
) -> dict[tuple[str, int], int]:
    """Return the positions of the labels of some predictions, by id and revision."""
    table, found = tables.label.c, dict[tuple[str, int], int]()
    by_place = {place: name for name, place in places.items()}
    for column, keys in (
        (table.prediction_id, sorted(set(names))),
        (table.prediction_position, sorted(by_place)),
    ):
        for start in range(0, len(keys), _LOOKED_UP):
            query = select(column, table.revision, table.position).where(
                table.pipeline_id == id_, column.in_(keys[start : start + _LOOKED_UP])
            )
            for key, revision, position in connection.execute(query).tuples():
                found[by_place.get(key, key), revision] = position
    return found


def _parked(connection: Connection, id_: int) -> int:
    """Count the labels whose prediction has not come."""
    label, prediction = tables.label.c, tables.prediction.c
    came = select(prediction.position).where(
        prediction.pipeline_id == id_, prediction.id == label.prediction_id
    )
    query = select(func.count()).where(
        label.pipeline_id == id_, label.prediction_id.is_not(None), ~came.exists()
    )
    return int(connection.execute(query).scalar_one())
