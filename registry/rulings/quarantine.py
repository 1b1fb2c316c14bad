"""The quarantine: ranges of offsets that every later recipe excludes."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, func, insert, select

from headwater.infra.clock import Clock, from_us, to_us
from headwater.infra.store.audit import check_note, note
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.spec.errors import NotFoundError
from headwater.spec.recipe import OffsetRange

__all__ = ["Quarantine"]


class Quarantine:
    """The excluded offsets of one pipeline.

    Parameters
    ----------
    pipeline_id
        The pipeline's number in the database.
    database, clock
        Where the rows are, and the time.
    """

    def __init__(self, pipeline_id: int, database: Database, clock: Clock) -> None:
        self._pipeline_id = pipeline_id
        self._database = database
        self._clock = clock

    def ranges(self) -> list[OffsetRange]:
        """List the excluded ranges, in order."""
        table = tables.quarantine.c
        with self._database.reading() as connection:
            rows = connection.execute(
                select(table.start, table.stop)
                .where(table.pipeline_id == self._pipeline_id)
                .order_by(table.start, table.stop)
            ).all()
        return [OffsetRange(start, stop) for start, stop in rows]

    def changed_at(self) -> datetime | None:
        """Return when offsets were excluded last; None if none are."""
        table = tables.quarantine.c
        newest = select(func.max(table.since_us)).where(table.pipeline_id == self._pipeline_id)
        with self._database.reading() as connection:
            since_us = connection.execute(newest).scalar_one()
        return None if since_us is None else from_us(since_us)

    def since(self, offset: int) -> list[OffsetRange]:
        """Return the range from an offset to the newest example; none if there is nothing in it."""
        with self._database.reading() as connection:
            span = OffsetRange(offset, max(offset, self._end(connection)))
        return [span] if len(span) else []

    def add(self, spans: Sequence[OffsetRange], *, by: str, reason: str) -> None:
        """Exclude offsets from every later recipe: all of them, or none.

        Raises
        ------
        NotFoundError
            If a range holds no offsets, or offsets of no example.
        """
        check_note(by, reason)
        now_us = to_us(self._clock.now())
        with self._database.transaction() as connection:
            self.insert(connection, spans, now_us, reason)
            for span in spans:
                detail = {"span": str(span), "reason": reason}
                note(connection, now_us, by, "quarantine", pipeline_id=self._pipeline_id, detail=detail)

    def insert(
        self, connection: Connection, spans: Sequence[OffsetRange], now_us: int, reason: str
    ) -> None:
        """Insert ranges within the caller's transaction; a range that is there stays as it is.

        Raises
        ------
        NotFoundError
            If a range holds no offsets, or offsets of no example.
        """
        table, end = tables.quarantine.c, self._end(connection)
        for span in spans:
            if span.start < 0 or len(span) == 0:
                raise NotFoundError(
                    f"{span} holds no offsets", hint="write --quarantine START:STOP, with START < STOP"
                )
            if span.stop > end:
                raise NotFoundError(
                    f"{span} reaches beyond the examples, which are [0, {end})",
                    hint="quarantine offsets of examples that are there",
                )
            row: dict[str, int | str] = {
                "pipeline_id": self._pipeline_id,
                "start": span.start,
                "stop": span.stop,
            }
            same = (table[name] == value for name, value in row.items())
            if connection.execute(select(table.start).where(*same)).one_or_none() is None:
                row |= {"since_us": now_us, "reason": reason}
                connection.execute(insert(tables.quarantine).values(row))

    def _end(self, connection: Connection) -> int:
        """Return the offset that the next example will have."""
        table = tables.sequencer.c
        rows = select(table.next_offset).where(table.pipeline_id == self._pipeline_id)
        return connection.execute(rows).scalar() or 0
