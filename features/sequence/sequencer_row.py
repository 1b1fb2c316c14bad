"""The row of a pipeline's sequencer: how far it is, moved in the transaction that writes examples."""

from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from headwater.infra.store.schema import tables

__all__ = ["SequencerRow", "SequencerState"]


class SequencerState(NamedTuple):
    """The state of a pipeline's sequencing, and the position up to which one inbox is read."""

    next_position: int
    next_offset: int
    horizon_us: int
    parked: int
    expired: int
    inbox_position: int


class SequencerRow:
    """The stored state of one pipeline's sequencing, from one inbox.

    Parameters
    ----------
    pipeline_id, inbox
        The pipeline's number in the database, and the inbox's id.
    """

    def __init__(self, pipeline_id: int, inbox: str) -> None:
        # Built once: SQLAlchemy takes longer to put such a statement together than SQLite to run it.
        place, read = tables.sequencer, tables.inbox_position
        mine = place.c.pipeline_id == pipeline_id
        from_mine = (read.c.pipeline_id == pipeline_id) & (read.c.inbox == inbox)
        columns = [place.c[name] for name in SequencerState._fields[:-1]]
        self._select = (
            select(*columns, read.c.position)
            .select_from(place.join(read, read.c.pipeline_id == place.c.pipeline_id))
            .where(mine, from_mine)
        )
        self._move = update(place).where(mine)
        self._move_inbox = update(read).where(from_mine).values(position=bindparam("read_to"))

    def read(self, connection: Connection) -> SequencerState:
        """Return the stored state."""
        return SequencerState._make(connection.execute(self._select).one())

    def move(self, connection: Connection, before: SequencerState, after: SequencerState) -> None:
        """Store the state after a batch, in the transaction that has read `before`."""
        columns = after._asdict()
        read_to = columns.pop("inbox_position")
        connection.execute(self._move, columns)
        if read_to > before.inbox_position:
            connection.execute(self._move_inbox, {"read_to": read_to})
