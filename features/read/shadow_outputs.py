"""The outputs of shadows: stored beside the log, and never part of an example.

A shadow's output is a row of its own, by the position of the prediction that it shadows. It takes no
position and no offset, so that examples are the same whoever predicts beside them, and it is judged by
the prediction's own label.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import insert, select, update

from headwater.infra.store.database import Database, insert_many
from headwater.infra.store.schema import tables
from headwater.spec.errors import FencedError

__all__ = ["ShadowOutput", "ShadowOutputs", "ShadowPlace"]


class ShadowPlace(NamedTuple):
    """The first position that a shadow predicted, and the next one that it has to predict."""

    first: int
    next: int


class ShadowOutput(NamedTuple):
    """The output of a shadow for the prediction at a position, as JSON."""

    position: int
    version: str
    output: bytes


class ShadowOutputs:
    """The outputs of one pipeline's shadows.

    Parameters
    ----------
    database, pipeline_id
        Where they are, and whose.
    """

    def __init__(self, database: Database, pipeline_id: int) -> None:
        self._database = database
        self._pipeline_id = pipeline_id

    def places(self) -> dict[str, ShadowPlace]:
        """Return the place of every version that was ever a shadow."""
        table = tables.shadow.c
        with self._database.reading() as connection:
            rows = connection.execute(
                select(table.version, table.first_position, table.next_position).where(
                    table.pipeline_id == self._pipeline_id
                )
            ).all()
        return {version: ShadowPlace(first, after) for version, first, after in rows}

    def begin(self, version: str, position: int) -> ShadowPlace:
        """Let a version predict from a position on; it has no place yet."""
        with self._database.transaction() as connection:
            connection.execute(
                insert(tables.shadow).values(
                    pipeline_id=self._pipeline_id,
                    version=version,
                    first_position=position,
                    next_position=position,
                )
            )
        return ShadowPlace(position, position)

    def add(self, version: str, start: int, stop: int, outputs: Sequence[tuple[int, bytes]]) -> None:
        """Store a version's outputs for the positions from `start` up to `stop`, and move its place.

        Parameters
        ----------
        version
            Its number.
        start, stop
            Its place, and its next one.
        outputs
            Positions and outputs, as JSON; predictions that it said nothing of are left out.

        Raises
        ------
        FencedError
            If another process predicts with this version: nothing is kept then.
        """
        table = tables.shadow
        mine = (table.c.pipeline_id == self._pipeline_id) & (table.c.version == version)
        with self._database.transaction() as connection:
            moved = connection.execute(
                update(table).where(mine, table.c.next_position == start).values(next_position=stop)
            )
            if moved.rowcount != 1:
                raise FencedError(
                    f"another process predicts with the shadow {version}",
                    hint="let one service run for a pipeline's home",
                )
            rows = [(self._pipeline_id, position, version, output) for position, output in outputs]
            insert_many(connection, tables.shadow_output, rows)

    def between(self, start: int, stop: int) -> list[ShadowOutput]:
        """Return the outputs for a range of positions, by position and version."""
        table = tables.shadow_output.c
        with self._database.reading() as connection:
            rows = connection.execute(
                select(table.position, table.version, table.output)
                .where(
                    table.pipeline_id == self._pipeline_id,
                    table.position >= start,
                    table.position < stop,
                )
                .order_by(table.position, table.version)
            ).all()
        return [ShadowOutput(*row) for row in rows]
