"""The champion: a row in the operational database, set by compare-and-swap; the aliases mirror it."""

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from headwater.infra.clock import Clock, from_us, to_us
from headwater.infra.commit_points import reached
from headwater.infra.store.audit import check_note, note
from headwater.infra.store.database import Database
from headwater.infra.store.lease import Lease, check
from headwater.infra.store.schema import tables
from headwater.registry.rulings.quarantine import Quarantine
from headwater.spec.errors import ConflictError
from headwater.spec.recipe import OffsetRange
from headwater.spec.rulings import Reign

__all__ = ["Championship", "Reign"]


class Championship:
    """The champion's row of one pipeline, and its history.

    Parameters
    ----------
    pipeline, pipeline_id
        Whose champion, and its number in the database.
    database, clock
        Where the row is, and the time.
    quarantine
        The offsets that are excluded when a champion is replaced.
    """

    def __init__(
        self,
        pipeline: str,
        pipeline_id: int,
        database: Database,
        clock: Clock,
        quarantine: Quarantine,
    ) -> None:
        self._pipeline = pipeline
        self._pipeline_id = pipeline_id
        self._database = database
        self._clock = clock
        self._quarantine = quarantine

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
        reign = Reign(
            epoch=1 if expected is None else expected.epoch + 1,
            version=version,
            previous=None if expected is None else expected.version,
            since=from_us(now_us),
            by=by,
            reason=reason,
        )
        detail: dict[str, object] = {"version": version, "previous": reign.previous}
        detail |= {"epoch": reign.epoch, "reason": reason}
        if quarantine:
            detail["quarantined"] = [str(span) for span in quarantine]
        with self._database.transaction() as connection:
            if lease is not None:
                check(connection, lease)
            self._compare(connection, expected)
            self._write(connection, reign, now_us)
            self._quarantine.insert(connection, quarantine, now_us, reason)
            note(connection, now_us, by, action, pipeline_id=self._pipeline_id, detail=detail)
        reached("promote.after_swap")
        return reign

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

    def _write(self, connection: Connection, reign: Reign, now_us: int) -> None:
        shared = {"version": reign.version, "epoch": reign.epoch, "since_us": now_us, "by": reign.by}
        of_pipeline = {"pipeline_id": self._pipeline_id, **shared}
        if reign.epoch == 1:
            connection.execute(insert(tables.champion).values(mirrored_epoch=0, **of_pipeline))
        else:
            connection.execute(
                update(tables.champion)
                .where(tables.champion.c.pipeline_id == self._pipeline_id)
                .values(shared)
            )
        connection.execute(
            insert(tables.reign).values(previous=reign.previous, reason=reign.reason, **of_pipeline)
        )
