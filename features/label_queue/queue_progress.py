"""The progress of a label queue: how far it has looked, and how many questions it has dealt."""

from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select, update

from headwater.infra.store.schema import queue_tables, tables

__all__ = ["QueuePosition", "QueueProgress"]


class QueuePosition(NamedTuple):
    """The position up to which the queue has looked, and the questions that it has dealt."""

    next_position: int
    dealt_random: int
    dealt: int
    labelled: int


class QueueProgress:
    """The progress of one pipeline's queue, in transactions that callers open.

    Parameters
    ----------
    pipeline_id
        Whose.
    """

    def __init__(self, pipeline_id: int) -> None:
        self._pipeline_id = pipeline_id

    def place(self, connection: Connection) -> QueuePosition:
        """Return the queue's position, locked until the transaction ends; make it if it is missing."""
        table = queue_tables.queue
        columns = [table.c[name] for name in QueuePosition._fields]
        query = select(*columns).where(table.c.pipeline_id == self._pipeline_id).with_for_update()
        row = connection.execute(query).one_or_none()
        if row is not None:
            return QueuePosition._make(row)
        place = QueuePosition(0, 0, 0, 0)
        connection.execute(insert(table).values(pipeline_id=self._pipeline_id, **place._asdict()))
        return place

    def looked_to(self, connection: Connection) -> int:
        """Return the position up to which the queue has looked."""
        table = queue_tables.queue.c
        query = select(table.next_position).where(table.pipeline_id == self._pipeline_id)
        return int(connection.execute(query).scalar_one_or_none() or 0)

    def end(self, connection: Connection) -> int:
        """Return the position behind the last sequenced record."""
        table = tables.sequencer.c
        query = select(table.next_position).where(table.pipeline_id == self._pipeline_id)
        return int(connection.execute(query).scalar_one())

    def behind(self, connection: Connection) -> int:
        """Return how many sequenced records the queue has not looked at."""
        return self.end(connection) - self.looked_to(connection)

    def move(self, connection: Connection, **columns: Any) -> None:
        """Change columns of the queue's position."""
        mine = queue_tables.queue.c.pipeline_id == self._pipeline_id
        connection.execute(update(queue_tables.queue).where(mine).values(**columns))
