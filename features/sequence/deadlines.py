"""The open deadlines of a pipeline: rows in the order in which they fall due."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, or_, select

from headwater.features.sequence.join_records import Deadline
from headwater.features.sequence.joining import before
from headwater.infra.store.database import insert_many
from headwater.infra.store.schema import sequencing_tables, tables

__all__ = ["DueDeadlines", "OpenDeadlines"]


class DueDeadlines(NamedTuple):
    """The deadlines that one batch takes.

    Parameters
    ----------
    rows
        In order.
    until
        The batch takes all deadlines before this one.
    more
        Whether others are due, too.
    """

    rows: Sequence[Deadline]
    until: Deadline
    more: bool


class OpenDeadlines:
    """The deadlines of one pipeline that have not fallen due, in transactions that callers open.

    A row is inserted with its prediction, if something is to happen at the due time, and deleted when
    it falls due. While the sequencer's lease holds, nobody else writes them: so a bound of the next one
    is kept in memory, and a log without deadlines costs no query.

    Parameters
    ----------
    pipeline_id
        The pipeline's number in the database.
    """

    def __init__(self, pipeline_id: int) -> None:
        self._pipeline_id = pipeline_id
        self._next_us: int | None = None
        self._known = False
        row, prediction = sequencing_tables.deadline.c, tables.prediction.c
        mine = row.pipeline_id == pipeline_id
        same = (prediction.pipeline_id == row.pipeline_id) & (prediction.position == row.position)
        self._select = (
            select(row.due_us, row.position, prediction.id)
            .join_from(sequencing_tables.deadline, tables.prediction, same)
            .where(mine, row.due_us < bindparam("until_us"))
            .order_by(row.due_us, row.position)
            .limit(bindparam("most"))
        )
        self._first = select(func.min(row.due_us)).where(mine)
        until_us, position = bindparam("until_us"), bindparam("before_position")
        self._delete = delete(sequencing_tables.deadline).where(
            mine,
            or_(row.due_us < until_us, (row.due_us == until_us) & (row.position < position)),
        )

    def forget(self) -> None:
        """Forget the bound: another process may have written, or a transaction failed."""
        self._known = False

    def due(self, connection: Connection, until_us: int, most: int) -> DueDeadlines:
        """Return the deadlines before a time, at most some of them."""
        until = before(until_us)
        if not self._known:
            self._look(connection)
        if self._next_us is None or self._next_us >= until_us:
            return DueDeadlines((), until, False)
        values = {"until_us": until_us, "most": most + 1}
        rows = [Deadline(*row) for row in connection.execute(self._select, values).tuples()]
        if not rows:
            self._look(connection)
        if len(rows) > most:
            return DueDeadlines(rows[:most], rows[most], True)
        return DueDeadlines(rows, until, False)

    def write(self, connection: Connection, taken: DueDeadlines, opened: Sequence[Deadline]) -> None:
        """Delete the deadlines that were taken, and insert those that predictions opened."""
        if taken.rows:
            until = {"until_us": taken.until.due_us, "before_position": taken.until.position}
            connection.execute(self._delete, until)
        if opened:
            rows = [(self._pipeline_id, one.due_us, one.position) for one in opened]
            insert_many(connection, sequencing_tables.deadline, rows)
            first_us = opened[0].due_us
            self._next_us = first_us if self._next_us is None else min(self._next_us, first_us)

    def _look(self, connection: Connection) -> None:
        self._next_us = connection.execute(self._first).scalar_one()
        self._known = True
