"""The rows that people quarantined: nothing is measured on them."""

from sqlalchemy import select

from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables

__all__ = ["QuarantinedRows"]


class QuarantinedRows:
    """The quarantined rows of one pipeline.

    Parameters
    ----------
    database, pipeline_id
        Where they are.
    """

    def __init__(self, database: Database, pipeline_id: int) -> None:
        self._database = database
        self._pipeline_id = pipeline_id

    def offsets(self, start: int, stop: int) -> list[int]:
        """Return the quarantined offsets of a range, rising."""
        table = tables.quarantine.c
        statement = select(table.start, table.stop).where(
            table.pipeline_id == self._pipeline_id, table.start < stop, table.stop > start
        )
        with self._database.reading() as connection:
            spans = connection.execute(statement).tuples().all()
        return sorted({o for first, end in spans for o in range(max(start, first), min(stop, end))})

    def positions(self, start: int, stop: int) -> list[int]:
        """Return the positions of a range of which the newest example is quarantined, rising."""
        example, span = tables.example.c, tables.quarantine.c
        newer = tables.example.alias()
        superseded = select(newer.c.offset).where(
            newer.c.pipeline_id == example.pipeline_id,
            newer.c.prediction_position == example.prediction_position,
            newer.c.offset > example.offset,
        )
        statement = (
            select(example.prediction_position)
            .join(
                tables.quarantine,
                (span.pipeline_id == example.pipeline_id)
                & (example.offset >= span.start)
                & (example.offset < span.stop),
            )
            .where(
                example.pipeline_id == self._pipeline_id,
                example.prediction_position >= start,
                example.prediction_position < stop,
                ~superseded.exists(),
            )
            .distinct()
            .order_by(example.prediction_position)
        )
        with self._database.reading() as connection:
            return list(connection.execute(statement).scalars())
