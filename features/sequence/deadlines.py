"""The open deadlines of a pipeline: rows in the order in which they fall due."""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace
from sqlalchemy import BindParameter, Connection, bindparam, delete, func, or_, select

from headwater.features.sequence.join_records import Deadline, NewPrediction
from headwater.features.sequence.joining import before
from headwater.features.sequence.recorded_rules import RecordedRules
from headwater.infra.store.database import insert_many
from headwater.infra.store.schema import sequencing_tables, tables

__all__ = ["DueDeadlines", "OpenDeadlines", "reopen"]


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
        until_us: BindParameter[int] = bindparam("until_us")
        position: BindParameter[int] = bindparam("before_position")
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


def reopen(
    connection: Connection,
    pipeline_id: int,
    predictions: Sequence[NewPrediction],
    rules: RecordedRules,
    horizon_us: int,
) -> list[NewPrediction]:
    """Return predictions from elsewhere with the due times that they name, and open their deadlines.

    What had fallen due is before the horizon, but for the last of several that were due at once: one
    that falls again does nothing. An open deadline falls at the horizon at the earliest.

    Parameters
    ----------
    connection, pipeline_id
        Where to write the deadlines.
    predictions, rules
        Sequenced predictions, and the rules under which they were recorded.
    horizon_us
        All before it was sequenced.
    """
    named, opened = list[NewPrediction](), list[tuple[int, int, int]]()
    by_number = rules.of(connection, {one.recorded_by for one in predictions})
    for one in predictions:
        rule = by_number[one.recorded_by]
        due_us = rule.due_us(one.payload, one.effective_at_us)
        named.append(replace(one, due_us=due_us) if rule.names_due else one)
        if rule.watches and due_us >= horizon_us - 1:
            opened.append((pipeline_id, max(due_us, horizon_us), one.position))
    insert_many(connection, sequencing_tables.deadline, opened)
    return named
