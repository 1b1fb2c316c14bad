"""The rows of claims: who holds which question, and until when."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, select, update

from headwater.infra.store.schema import queue_tables

__all__ = ["Claims"]


class Claims:
    """The claims of one pipeline's questions, in transactions that callers open.

    Parameters
    ----------
    pipeline_id
        Whose.
    """

    def __init__(self, pipeline_id: int) -> None:
        self._pipeline_id = pipeline_id

    def until(self, connection: Connection, position: int, person: str) -> int | None:
        """Return the end of a person's claim of a question; None if he never claimed it."""
        query = select(queue_tables.claim.c.until_us).where(*self._of(position, person))
        return connection.execute(query).scalar_one_or_none()

    def living(self, position: Any, now_us: int) -> Select[tuple[int]]:
        """Count the claims of a question, given or of a row of a query, that have not ended."""
        claim = queue_tables.claim.c
        return select(func.count()).where(*self._of(position), claim.until_us > now_us)

    def put(self, connection: Connection, position: int, person: str, until_us: int) -> None:
        """Claim a question for a person, or prolong his claim."""
        mine = self._of(position, person)
        changed = connection.execute(update(queue_tables.claim).where(*mine).values(until_us=until_us))
        if not changed.rowcount:
            key = {"pipeline_id": self._pipeline_id, "position": position, "person": person}
            connection.execute(insert(queue_tables.claim).values(**key, until_us=until_us))

    def drop(self, connection: Connection, position: int, person: str | None = None) -> None:
        """Delete a person's claim of a question, or everybody's."""
        connection.execute(delete(queue_tables.claim).where(*self._of(position, person)))

    def _of(self, position: Any, person: str | None = None) -> list[ColumnElement[bool]]:
        claim = queue_tables.claim.c
        of_question = [claim.pipeline_id == self._pipeline_id, claim.position == position]
        return of_question if person is None else [*of_question, claim.person == person]
