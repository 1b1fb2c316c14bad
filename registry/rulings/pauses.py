"""Pauses of learning each label: rows that are added and never changed, like routings."""

from sqlalchemy import Connection, insert, select

from headwater.infra.clock import Clock, from_us, to_us
from headwater.infra.store.audit import check_note, note
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.spec.rulings import Pause

__all__ = ["Pauses"]


class Pauses:
    """The pauses of one pipeline.

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
        # Built once, since the keeper looks again and again.
        self._select_newest = (
            select(tables.pause)
            .where(tables.pause.c.pipeline_id == pipeline_id)
            .order_by(tables.pause.c.number.desc())
            .limit(1)
        )

    def in_force(self) -> Pause | None:
        """Return the pause in force; None if learning goes on."""
        with self._database.reading() as connection:
            return self._newest(connection)[1]

    def pause(self, *, by: str, reason: str) -> Pause:
        """Halt learning at the sequencer's next offset; a second pause changes nothing.

        The offset is read in the transaction that halts. The learner reads how far examples go before it
        looks for a pause, so it learns no example from that offset on.
        """
        check_note(by, reason)
        now_us = to_us(self._clock.now())
        with self._database.transaction() as connection:
            number, in_force = self._newest(connection)
            if in_force is not None:
                return in_force
            offset, epoch = self._place(connection)
            self._add(connection, number + 1, now_us, by, reason, paused=True, at=(offset, epoch))
        return Pause(offset=offset, epoch=epoch, since=from_us(now_us), by=by, reason=reason)

    def resume(self, *, by: str, reason: str) -> None:
        """Let learning go on from the offset at which it halted; if it is not halted, change nothing."""
        check_note(by, reason)
        now_us = to_us(self._clock.now())
        with self._database.transaction() as connection:
            number, in_force = self._newest(connection)
            if in_force is None:
                return
            at = in_force.offset, in_force.epoch
            self._add(connection, number + 1, now_us, by, reason, paused=False, at=at)

    def _newest(self, connection: Connection) -> tuple[int, Pause | None]:
        row = connection.execute(self._select_newest).one_or_none()
        if row is None:
            return 0, None
        if not row.paused:
            return row.number, None
        return row.number, Pause(
            offset=row.offset,
            epoch=row.epoch,
            since=from_us(row.since_us),
            by=row.by,
            reason=row.reason,
        )

    def _place(self, connection: Connection) -> tuple[int, int]:
        """Return the next offset, and the epoch of the present reign."""
        sequencer, champion = tables.sequencer.c, tables.champion.c
        offset = connection.execute(
            select(sequencer.next_offset).where(sequencer.pipeline_id == self._pipeline_id)
        ).scalar_one()
        epoch = connection.execute(
            select(champion.epoch).where(champion.pipeline_id == self._pipeline_id)
        ).scalar_one_or_none()
        return int(offset), int(epoch or 0)

    def _add(
        self,
        connection: Connection,
        number: int,
        now_us: int,
        by: str,
        reason: str,
        *,
        paused: bool,
        at: tuple[int, int],
    ) -> None:
        connection.execute(
            insert(tables.pause).values(
                pipeline_id=self._pipeline_id,
                number=number,
                paused=paused,
                offset=at[0],
                epoch=at[1],
                since_us=now_us,
                by=by,
                reason=reason,
            )
        )
        action = "pause learning" if paused else "resume learning"
        detail = {"offset": at[0], "reason": reason}
        note(connection, now_us, by, action, pipeline_id=self._pipeline_id, detail=detail)
