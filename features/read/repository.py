"""The sequenced records in the operational database, read by range."""

from bisect import bisect_left
from collections.abc import Collection
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Select, func, insert, select

from headwater.features.identity.belonging import check_home, check_inbox, check_new
from headwater.features.read.frames import ExampleRow, LabelOfRow, LabelRow, PredictionRow
from headwater.features.read.stored_rows import StoredRows
from headwater.features.record.inbox import Inbox, inbox_file
from headwater.infra.commit_points import reached
from headwater.infra.ids import new_id
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.identity import identity_of
from headwater.infra.store.schema import tables
from headwater.spec.declaration import declaration_of
from headwater.spec.errors import DamagedError, NotFoundError, few, spans_of
from headwater.spec.pipeline import Pipeline

__all__ = ["LogCounts", "LogRepository", "damaged_examples", "find", "register", "registered"]

Row = TypeVar("Row", bound=tuple[Any, ...])


class LogCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of records that the log holds.

    Parameters
    ----------
    predictions, labels, examples
        Sequenced records of each kind.
    unsequenced
        Records that wait in the inbox for the sequencer.
    unlabelled
        Predictions without any label.
    late
        Labels that came after their prediction's wait.
    parked
        Labels that wait for their prediction.
    expired
        Labels that were dropped, since their prediction did not come within the wait.
    held
        Labels of classes that are not declared, which are held back until a person names the class.
    archived
        Examples that are in the archive.
    """

    predictions: int
    labels: int
    examples: int
    unsequenced: int
    unlabelled: int
    late: int
    parked: int
    expired: int
    held: int
    archived: int


class LogRepository:
    """One pipeline's sequenced records.

    Parameters
    ----------
    database, pipeline_id
        Where they are.

    Attributes
    ----------
    rows
        Those that are whole, by range.
    """

    def __init__(self, database: Database, pipeline_id: int) -> None:
        self._database = database
        self._pipeline_id = pipeline_id
        # Built once: SQLAlchemy takes longer to put such a statement together than SQLite to run it.
        place = tables.sequencer.c
        self._select_ends = select(place.next_position, place.next_offset).where(
            place.pipeline_id == pipeline_id
        )
        self.rows = StoredRows(database, pipeline_id)

    def ends(self) -> tuple[int, int]:
        """Return the next position and the next offset."""
        ((position, offset),) = self._rows(self._select_ends)
        return position, offset

    def expired(self) -> int:
        """Return how many labels were dropped because their prediction came after the wait."""
        place = tables.sequencer.c
        ((expired,),) = self._rows(select(place.expired).where(place.pipeline_id == self._pipeline_id))
        return int(expired)

    def inbox_position(self, inbox: str) -> int:
        """Return the position up to which an inbox is sequenced."""
        table = tables.inbox_position.c
        ((position,),) = self._rows(
            select(table.position).where(table.pipeline_id == self._pipeline_id, table.inbox == inbox)
        )
        return int(position)

    def first_emitted(self, moment_us: int, stop: int) -> int:
        """Bisect for the first offset below `stop` emitted at a time or later; `stop` if none is."""
        return bisect_left(
            range(stop), moment_us, key=lambda offset: self.emitted(offset, offset + 1)[0]
        )

    def superseded(self, start: int, stop: int) -> list[int]:
        """Return the offsets of a range that a newer example of the range supersedes, rising."""
        table = tables.example.c
        rows = self._rows(
            select(table.supersedes)
            .where(*self._within(table.offset, start, stop), table.supersedes >= start)
            .order_by(table.supersedes)
        )
        return [offset for (offset,) in rows if offset is not None]

    def corrections(self, start: int, stop: int) -> list[int]:
        """Return the offsets of a range that supersede an older example, rising."""
        table = tables.example.c
        rows = self._rows(
            select(table.offset)
            .where(*self._within(table.offset, start, stop), table.supersedes.is_not(None))
            .order_by(table.offset)
        )
        return [offset for (offset,) in rows]

    def emitted(self, start: int, stop: int) -> list[int]:
        """Return the emission times of a range of offsets, in order, in microseconds."""
        table = tables.example.c
        rows = self._rows(
            select(table.emitted_at_us)
            .where(*self._within(table.offset, start, stop))
            .order_by(table.offset)
        )
        return [moment_us for (moment_us,) in rows]

    def counts(self, unsequenced: int, archived: int, since_us: int) -> LogCounts:
        """Count the records; the caller counts those outside the database.

        Parameters
        ----------
        unsequenced, archived
            What the inbox and the archive hold.
        since_us
            A label received before has expired, if its prediction has not come.
        """
        prediction, label = tables.prediction.c, tables.label.c
        of_mine = select(label.position).where(label.pipeline_id == self._pipeline_id)
        has_label = of_mine.where(label.prediction_position == prediction.position)
        had_label = of_mine.where(label.prediction_id == prediction.id)
        place = tables.sequencer.c
        waiting = select(place.parked, place.expired).where(place.pipeline_id == self._pipeline_id)
        without = select(func.count()).where(
            label.pipeline_id == self._pipeline_id,
            label.prediction_id.is_not(None),
            label.effective_at_us < since_us,
            ~select(prediction.position)
            .where(prediction.pipeline_id == self._pipeline_id, prediction.id == label.prediction_id)
            .exists(),
        )
        predictions, labels, examples = (
            select(func.count()).where(table.c.pipeline_id == self._pipeline_id)
            for table in (tables.prediction, tables.label, tables.example)
        )
        new = tables.label_class.c
        unnamed = select(new.digest).where(
            new.pipeline_id == self._pipeline_id, new.named_from.is_(None)
        )
        with self._database.reading() as connection:
            parked, expired = connection.execute(waiting).one()
            dropped = _count(connection, without) if parked else 0
            return LogCounts(
                predictions=_count(connection, predictions),
                labels=_count(connection, labels),
                examples=_count(connection, examples),
                unsequenced=unsequenced,
                unlabelled=_count(
                    connection, predictions.where(~has_label.exists(), ~had_label.exists())
                ),
                late=_count(connection, labels.where(label.late)),
                parked=parked - dropped,
                expired=expired + dropped,
                held=_count(connection, labels.where(label.held_class.in_(unnamed))),
                archived=archived,
            )

    def predictions(self, start: int, stop: int) -> list[PredictionRow]:
        """Return the predictions of a range of positions, in order, without damaged ones."""
        return self.rows.predictions(start, stop)

    def recorded(self, position: int, skipped: int = 0) -> tuple[int, int] | None:
        """Return position and time, in microseconds, of the prediction at `position` or the next one.

        Skip so many before; None if there are not as many.
        """
        table = tables.prediction.c
        rows = self._rows(
            select(table.position, table.effective_at_us)
            .where(table.pipeline_id == self._pipeline_id, table.position >= position)
            .order_by(table.position)
            .offset(skipped)
            .limit(1)
        )
        return rows[0] if rows else None

    def count(self, start: int, stop: int) -> int:
        """Count the predictions of a range of positions."""
        table = tables.prediction.c
        ((count,),) = self._rows(select(func.count()).where(*self._within(table.position, start, stop)))
        return int(count)

    def labels_of(self, start: int, stop: int) -> list[LabelOfRow]:
        """Return the labels that made examples of a range of predictions, by prediction and offset."""
        example, label = tables.example.c, tables.label.c
        return self._rows(
            select(example.prediction_position, label.late, label.payload)
            .join(
                tables.label,
                (label.pipeline_id == example.pipeline_id) & (label.position == example.label_position),
            )
            .where(*self._within(example.prediction_position, start, stop))
            .order_by(example.prediction_position, example.offset)
        )

    def labels(self, start: int, stop: int) -> list[LabelRow]:
        """Return the labels of a range of positions, in order, without damaged ones."""
        return self.rows.labels(start, stop)

    def examples(self, start: int, stop: int, without: Collection[int] = ()) -> list[ExampleRow]:
        """Return the examples of a range of offsets, in order, with both their halves.

        Those of `without` that are damaged are left out.

        Raises
        ------
        DamagedError
            If others are damaged; it names them.
        """
        rows = self.rows.examples(start, stop)
        if len(rows) < stop - start:
            there = {row[0] for row in rows}.union(without)
            damaged = [offset for offset in range(start, stop) if offset not in there]
            if damaged:
                raise damaged_examples(damaged)
        return rows

    def _within(self, column: Column[Any], start: int, stop: int) -> list[ColumnElement[bool]]:
        """Select this pipeline's rows of a range, by a column of their table."""
        return [column.table.c.pipeline_id == self._pipeline_id, column >= start, column < stop]

    def _rows(self, statement: Select[Row], values: dict[str, int] | None = None) -> list[Row]:
        with self._database.reading() as connection:
            return list(connection.execute(statement, values).tuples().all())


def damaged_examples(offsets: Collection[int]) -> DamagedError:
    """Return the error of examples of which no whole copy was found."""
    spans = spans_of(offsets)
    return DamagedError(
        f"the examples {spans} are damaged, in the database and where they were archived: nothing is "
        "learned over them",
        hint="mend them from the inbox: headwater doctor --repair; if that cannot, leave them out: "
        "headwater quarantine PIPELINE START:STOP",
        places=offsets,
    )


def _count(connection: Connection, statement: Select[tuple[int]]) -> int:
    return connection.execute(statement).scalar_one()


def register(database: Database, pipeline: Pipeline, inbox: Inbox) -> int:
    """Register a pipeline with a number, a log's id and a sequencer's start, or find its number.

    Raises
    ------
    IdentityError, IntegrityError
        If the inbox is not the log's own, or has lost records; nothing is changed then.
    """
    pipeline_id = _register(database, pipeline, inbox)
    if inbox.identity.log is None:
        # The database knows the inbox by now: whoever comes after a kill finds that it is the log's.
        reached("begin.after_register")
        inbox.belong_to(identity_of(database, pipeline_id).log)
        reached("begin.after_belonging")
        check_inbox(database, pipeline_id, inbox)  # another database may have registered it just now
    return pipeline_id


def _register(database: Database, pipeline: Pipeline, inbox: Inbox) -> int:
    with database.reading() as connection:  # nothing is written where it is known
        known_id = _known(connection, pipeline.name)
    if known_id is None:
        with database.transaction() as connection:
            known_id = _known(connection, pipeline.name)  # by another process, just now
            if known_id is None:
                return _insert(connection, pipeline, inbox)
    check_inbox(database, known_id, inbox)
    return known_id


def _known(connection: Connection, name: str) -> int | None:
    known = select(tables.pipeline.c.id).where(tables.pipeline.c.name == name)
    return connection.execute(known).scalar_one_or_none()


def _insert(connection: Connection, pipeline: Pipeline, inbox: Inbox) -> int:
    check_new(inbox)
    pipeline_id = connection.execute(
        insert(tables.pipeline)
        .values(name=pipeline.name, declaration=declaration_of(pipeline).to_json())
        .returning(tables.pipeline.c.id)
    ).scalar_one()
    connection.execute(
        insert(tables.sequencer).values(
            pipeline_id=pipeline_id,
            next_position=0,
            next_offset=0,
            horizon_us=0,
            parked=0,
            expired=0,
        )
    )
    connection.execute(
        insert(tables.inbox_position).values(
            pipeline_id=pipeline_id, inbox=inbox.identity.inbox, position=0
        )
    )
    connection.execute(insert(tables.log).values(pipeline_id=pipeline_id, uuid=new_id()))
    return int(pipeline_id)


def find(database: Database, name: str, settings: Settings) -> int:
    """Return the number of a pipeline that has recorded something here.

    Parameters
    ----------
    database, name
        Where, and which.
    settings
        Where the home is: an inbox that it has must be the log's.

    Raises
    ------
    NotFoundError
        If there is none of that name.
    IdentityError
        If the home's inbox belongs to another log.
    """
    known = registered(database)
    if name not in known:
        raise NotFoundError(
            f"no pipeline {name!r} has recorded anything here",
            hint=f"known are {few(sorted(known))}"
            if known
            else "check HEADWATER_HOME, or record first: headwater import PIPELINE FILE",
        )
    check_home(database, known[name], inbox_file(name, settings))
    return known[name]


def registered(database: Database) -> dict[str, int]:
    """Return the numbers of the pipelines that have recorded something here, by name."""
    with database.reading() as connection:
        rows = connection.execute(select(tables.pipeline.c.name, tables.pipeline.c.id)).all()
    return {name: int(pipeline_id) for name, pipeline_id in rows}
