"""The decisions of a pipeline: stored before any effect, claimed by a trainer, ended once."""

from datetime import datetime

import msgspec
from sqlalchemy import Row, func, insert, select, update

from headwater.infra.clock import Clock, from_us, to_us
from headwater.infra.commit_points import reached
from headwater.infra.store.database import Database
from headwater.infra.store.lease import Lease, check
from headwater.infra.store.schema import tables
from headwater.spec.errors import NotFoundError
from headwater.spec.recipe import OffsetRange, Recipe
from headwater.spec.updating.decision import Decision, Outcome

__all__ = ["Decisions", "Work"]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The work of a decision, fixed by its first claim; whoever claims it again does the same.

    Parameters
    ----------
    recipe
        How to make the version; None if there was nothing to learn.
    judged
        The newest examples, held back from the recipe, on which the gate judges.
    champion
        The version that it is compared with; None if none served.
    reason
        Why it starts where it does, in words.
    """

    recipe: Recipe | None
    judged: OffsetRange
    champion: str | None
    reason: str


class Decisions:
    """One pipeline's decisions, in the operational database.

    Parameters
    ----------
    pipeline, pipeline_id
        Whose, and its number in the database.
    database, clock
        Where the rows are, and the time.
    """

    def __init__(self, pipeline: str, pipeline_id: int, database: Database, clock: Clock) -> None:
        self._pipeline = pipeline
        self._pipeline_id = pipeline_id
        self._database = database
        self._clock = clock
        self._mine = tables.decision.c.pipeline_id == pipeline_id

    def store(self, decision: Decision) -> bool:
        """Store a decision; a decision that is stored already stays as it is.

        Returns
        -------
        bool
            Whether it is new.
        """
        table = tables.decision
        reached("decide.before_store")
        with self._database.transaction() as connection:
            row = connection.execute(
                select(table.c.id).where(self._mine, table.c.id == decision.id)
            ).one_or_none()
            if row is None:
                connection.execute(
                    insert(table).values(
                        pipeline_id=self._pipeline_id,
                        id=decision.id,
                        at_us=to_us(decision.at),
                        fired=decision.fired,
                        record=msgspec.json.encode(decision),
                        attempts=0,
                    )
                )
        reached("decide.after_store")
        return row is None

    def get(self, id_: str) -> Decision:
        """Return the decision of an id.

        Raises
        ------
        NotFoundError
            If there is no such decision.
        """
        with self._database.reading() as connection:
            row = connection.execute(
                select(tables.decision).where(self._mine, tables.decision.c.id == id_)
            ).one_or_none()
        if row is None:
            raise NotFoundError(
                f"pipeline {self._pipeline!r} has no decision {id_!r}",
                hint=f"headwater decisions {self._pipeline} lists them",
            )
        return _read(row)

    def newest(self, last: int | None = None, *, fired: bool = False) -> list[Decision]:
        """List the newest decisions, oldest first.

        Parameters
        ----------
        last
            How many; None for all.
        fired
            Only those that fired.
        """
        table = tables.decision
        statement = select(table).where(self._mine).order_by(table.c.at_us.desc(), table.c.id)
        if fired:
            statement = statement.where(table.c.fired)
        with self._database.reading() as connection:
            rows = connection.execute(statement.limit(last)).all()
        return [_read(row) for row in reversed(rows)]

    def unended(self) -> list[Decision]:
        """List the decisions that fired and have not ended, oldest first."""
        table = tables.decision
        with self._database.reading() as connection:
            rows = connection.execute(
                select(table)
                .where(self._mine, table.c.fired, table.c.ended_at_us.is_(None))
                .order_by(table.c.at_us, table.c.id)
            ).all()
        return [_read(row) for row in rows]

    def fired_since(self, moment: datetime) -> tuple[datetime, ...]:
        """List when decisions fired, from a moment on, and the last time before it; newest first."""
        table = tables.decision
        fired = select(table.c.at_us).where(self._mine, table.c.fired).order_by(table.c.at_us.desc())
        before = select(func.max(table.c.at_us)).where(
            self._mine, table.c.fired, table.c.at_us < to_us(moment)
        )
        with self._database.reading() as connection:
            times = connection.execute(fired.where(table.c.at_us >= to_us(moment))).scalars().all()
            last_us = connection.execute(before).scalar_one()
        return tuple(from_us(at_us) for at_us in [*times, *([] if last_us is None else [last_us])])

    def claim(self, id_: str, work: Work, *, by: str, lease: Lease, replace: bool = False) -> Work:
        """Claim a decision, under the trainer's lease.

        Parameters
        ----------
        id_
            The decision.
        work
            The work, unless an earlier claim fixed it.
        by
            Who works on it, for the record.
        lease
            The trainer's.
        replace
            Replace the work of an earlier claim.

        Returns
        -------
        Work
            The work to do: `work`, or that of an earlier claim whose process was killed.

        Raises
        ------
        FencedError
            If the lease was taken over; nothing is changed then.
        """
        table = tables.decision
        with self._database.transaction() as connection:
            check(connection, lease)
            claimed = connection.execute(
                select(table.c.work).where(self._mine, table.c.id == id_)
            ).scalar_one()
            claimed = None if replace else claimed
            values = {"claimed_by": by} | ({} if claimed else {"work": msgspec.json.encode(work)})
            connection.execute(update(table).where(self._mine, table.c.id == id_).values(values))
        reached("claim.after_commit")
        return msgspec.json.decode(claimed, type=Work) if claimed else work

    def end(self, id_: str, outcome: Outcome, lease: Lease) -> None:
        """Record how a decision's update ended; only the first end counts.

        Raises
        ------
        FencedError
            If the lease was taken over; nothing is changed then.
        """
        table = tables.decision
        reached("end.before_commit")
        with self._database.transaction() as connection:
            check(connection, lease)
            connection.execute(
                update(table)
                .where(self._mine, table.c.id == id_, table.c.ended_at_us.is_(None))
                .values(ended_at_us=to_us(outcome.ended_at), outcome=msgspec.json.encode(outcome))
            )
        reached("end.after_commit")

    def attempt(self, decision: Decision) -> int | None:
        """Count a request for a run before it is made: compare-and-swap on the number of requests.

        Returns
        -------
        int or None
            Number of the attempt, from 1; None if another dispatcher was faster.
        """
        table, number = tables.decision, decision.attempts + 1
        with self._database.transaction() as connection:
            updated = connection.execute(
                update(table)
                .where(self._mine, table.c.id == decision.id, table.c.attempts == decision.attempts)
                .values(attempts=number, dispatched_at_us=to_us(self._clock.now()))
            ).rowcount
        return number if updated else None


def _read(row: Row[tuple[object, ...]]) -> Decision:
    decision = msgspec.json.decode(row.record, type=Decision)
    return msgspec.structs.replace(
        decision,
        attempts=row.attempts,
        dispatched_at=None if row.dispatched_at_us is None else from_us(row.dispatched_at_us),
        claimed_by=row.claimed_by,
        outcome=None if row.outcome is None else msgspec.json.decode(row.outcome, type=Outcome),
    )
