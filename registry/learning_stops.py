"""The stop of scheduled learning: a row while updates end at examples that cannot be learned."""

from sqlalchemy import delete, insert, select

from headwater.infra.clock import Clock, to_us
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.spec.errors import HeadwaterError, UnlearnableError

__all__ = ["LearningStops"]


class LearningStops:
    """The stop of one pipeline's updates; a service shows it as an alarm.

    Parameters
    ----------
    pipeline_id
        The pipeline's number in the database.
    database, clock
        Where the row is, and the time.
    """

    def __init__(self, pipeline_id: int, database: Database, clock: Clock) -> None:
        self._pipeline_id = pipeline_id
        self._database = database
        self._clock = clock
        table = tables.learning_stop
        self._mine = table.c.pipeline_id == pipeline_id
        # Built once, since the keeper looks again and again.
        self._select = select(table.c.what, table.c.hint).where(self._mine)

    def in_force(self) -> UnlearnableError | None:
        """Return what the last update ended at; None if it learned."""
        with self._database.reading() as connection:
            row = connection.execute(self._select).one_or_none()
        return None if row is None else UnlearnableError(row.what, row.hint)

    def begin(self, error: HeadwaterError) -> None:
        """Record that an update ended at examples that cannot be learned."""
        row = {"since_us": to_us(self._clock.now()), "what": error.what, "hint": error.hint}
        with self._database.transaction() as connection:
            connection.execute(delete(tables.learning_stop).where(self._mine))
            values = {"pipeline_id": self._pipeline_id, **row}
            connection.execute(insert(tables.learning_stop).values(values))

    def end(self) -> None:
        """Record that an update learned."""
        if self.in_force() is None:
            return
        with self._database.transaction() as connection:
            connection.execute(delete(tables.learning_stop).where(self._mine))
