"""The champion: a row in the operational database, set by compare-and-swap; the aliases mirror it."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, insert, select, update

from headwater.infra.clock import Clock, from_us, to_us
from headwater.infra.commit_points import reached
from headwater.infra.store import tables
from headwater.infra.store.audit import check_note, note
from headwater.infra.store.database import Database
from headwater.infra.store.lease import Lease, check
from headwater.spec.errors import ConflictError, NotFoundError
from headwater.spec.recipe import OffsetRange
from headwater.spec.rulings import Reign

__all__ = ["Championship", "Reign"]


class Championship:
    """The champion's row of one pipeline, its history, and the quarantined offsets.

    Parameters
    ----------
    pipeline, pipeline_id
        Whose champion, and its number in the database.
    database, clock
        Where the row is, and the time.
    """

    def __init__(self, pipeline: str, pipeline_id: int, database: Database, clock: Clock) -> None:
        self._pipeline = pipeline
        self._pipeline_id = pipeline_id
        self._database = database
        self._clock = clock

    def reign(self) -> Reign | None:
        """Return the present reign; None if no version was promoted yet."""
        history = self.history()
        return history[-1] if history else None

    def epoch(self) -> int | None:
        """Return the number of the present reign, and read nothing else; None before the first."""
        table = tables.champion.c
        with self._database.reading() as connection:
            epoch = connection.execute(
                select(table.epoch).where(table.pipeline_id == self._pipeline_id)
            ).scalar_one_or_none()
        return None if epoch is None else int(epoch)

    def history(self) -> list[Reign]:
        """List all reigns, oldest first."""
        table = tables.reign.c
        with self._database.reading() as connection:
            rows = connection.execute(
                select(
                    table.epoch, table.version, table.previous, table.since_us, table.by, table.reason
                )
                .where(table.pipeline_id == self._pipeline_id)
                .order_by(table.epoch)
            ).all()
        return [
            Reign(epoch=epoch, version=version, previous=previous, since=from_us(us), by=by, reason=why)
            for epoch, version, previous, us, by, why in rows
        ]

    def mirrored(self) -> bool:
        """Tell whether the aliases were set to the present reign."""
        table = tables.champion.c
        with self._database.reading() as connection:
            row = connection.execute(
                select(table.epoch, table.mirrored_epoch).where(table.pipeline_id == self._pipeline_id)
            ).one_or_none()
        return row is None or row.epoch == row.mirrored_epoch

    def note_mirrored(self, epoch: int) -> None:
        """Record that the aliases show a reign."""
        table = tables.champion
        with self._database.transaction() as connection:
            connection.execute(
                update(table)
                .where(table.c.pipeline_id == self._pipeline_id, table.c.epoch == epoch)
                .values(mirrored_epoch=epoch)
            )

    def swap(
        self,
        version: str,
        *,
        expected: Reign | None,
        by: str,
        reason: str,
        lease: Lease | None = None,
        quarantine: Sequence[OffsetRange] = (),
        action: str = "promote",
    ) -> Reign:
        """Make a version champion, if the present reign is the expected one.

        Parameters
        ----------
        version
            Its number; it must exist.
        expected
            The reign that the caller saw.
        by, reason
            Who decides, and why.
        lease
            The trainer's, if a trainer promotes; checked in the same transaction.
        quarantine
            Offsets that later recipes exclude, recorded in the same transaction.
        action
            The audit's word for it, recorded in the same transaction.

        Raises
        ------
        ConflictError
            If another reign began meanwhile; nothing is changed then.
        FencedError
            If the lease was taken over; nothing is changed then.
        """
        check_note(by, reason)
        now_us = to_us(self._clock.now())
        reached("promote.before_swap")
        with self._database.transaction() as connection:
            if lease is not None:
                check(connection, lease)
            self._compare(connection, expected)
            epoch = 1 if expected is None else expected.epoch + 1
            previous = None if expected is None else expected.version
            self._write(connection, epoch, version, previous, now_us, by, reason)
            for span in quarantine:
                self._quarantine(connection, span, now_us, reason)
            detail: dict[str, object] = {
                "version": version,
                "previous": previous,
                "epoch": epoch,
                "reason": reason,
            }
            detail |= {"quarantined": [str(span) for span in quarantine]} if quarantine else {}
            self._note(connection, now_us, by, action, detail)
        reached("promote.after_swap")
        return Reign(
            epoch=epoch, version=version, previous=previous, since=from_us(now_us), by=by, reason=reason
        )

    def quarantine(self, spans: Sequence[OffsetRange], *, by: str, reason: str) -> None:
        """Exclude offsets from every later recipe: all of them, or none."""
        check_note(by, reason)
        now_us = to_us(self._clock.now())
        with self._database.transaction() as connection:
            for span in spans:
                self._quarantine(connection, span, now_us, reason)
                self._note(connection, now_us, by, "quarantine", {"span": str(span), "reason": reason})

    def quarantined(self) -> list[OffsetRange]:
        """List the excluded ranges, in order."""
        table = tables.quarantine.c
        with self._database.reading() as connection:
            rows = connection.execute(
                select(table.start, table.stop)
                .where(table.pipeline_id == self._pipeline_id)
                .order_by(table.start, table.stop)
            ).all()
        return [OffsetRange(start, stop) for start, stop in rows]

    def _compare(self, connection: Connection, expected: Reign | None) -> None:
        table = tables.champion.c
        epoch = connection.execute(
            select(table.epoch).where(table.pipeline_id == self._pipeline_id).with_for_update()
        ).scalar_one_or_none()
        if epoch != (None if expected is None else expected.epoch):
            raise ConflictError(
                f"the champion of {self._pipeline!r} changed meanwhile: reign {epoch} began",
                hint="look at headwater versions, then decide again",
            )

    def _write(
        self,
        connection: Connection,
        epoch: int,
        version: str,
        previous: str | None,
        now_us: int,
        by: str,
        reason: str,
    ) -> None:
        values = {"version": version, "epoch": epoch, "since_us": now_us, "by": by}
        if epoch == 1:
            row = {"pipeline_id": self._pipeline_id, "mirrored_epoch": 0, **values}
            connection.execute(insert(tables.champion).values(row))
        else:
            connection.execute(
                update(tables.champion)
                .where(tables.champion.c.pipeline_id == self._pipeline_id)
                .values(values)
            )
        connection.execute(
            insert(tables.reign).values(
                pipeline_id=self._pipeline_id,
                epoch=epoch,
                version=version,
                previous=previous,
                since_us=now_us,
                by=by,
                reason=reason,
            )
        )

    def _note(
        self, connection: Connection, now_us: int, by: str, action: str, detail: Mapping[str, object]
    ) -> None:
        note(connection, now_us, by, action, pipeline_id=self._pipeline_id, detail=detail)

    def _quarantine(self, connection: Connection, span: OffsetRange, now_us: int, reason: str) -> None:
        if span.start < 0 or len(span) == 0:
            raise NotFoundError(
                f"{span} holds no offsets", hint="write --quarantine START:STOP, with START < STOP"
            )
        table = tables.quarantine
        row = connection.execute(
            select(table.c.start).where(
                table.c.pipeline_id == self._pipeline_id,
                table.c.start == span.start,
                table.c.stop == span.stop,
            )
        ).one_or_none()
        if row is None:
            connection.execute(
                insert(table).values(
                    pipeline_id=self._pipeline_id,
                    start=span.start,
                    stop=span.stop,
                    since_us=now_us,
                    reason=reason,
                )
            )
