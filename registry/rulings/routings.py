"""The routing of requests: the declared one, or one that somebody set at run time."""

from sqlalchemy import func, insert, select

from headwater.infra.clock import Clock, from_us, to_us
from headwater.infra.store.audit import check_note, note
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.registry.mlflow_store.versions import CHALLENGER, CHAMPION, VersionStore
from headwater.spec.errors import ConflictError
from headwater.spec.rulings import Ruling
from headwater.spec.serving.routing import Routing
from headwater.spec.serving.routing_text import routing_from_json, routing_to_json, shortly

__all__ = ["Routings", "Ruling"]


class Routings:
    """The routings that were set for one pipeline: rows that are added and never changed.

    Parameters
    ----------
    store, pipeline_id
        The pipeline's versions, and its number in the database.
    database, clock
        Where the rows are, and the time.
    """

    def __init__(self, store: VersionStore, pipeline_id: int, database: Database, clock: Clock) -> None:
        self._store = store
        self._pipeline_id = pipeline_id
        self._database = database
        self._clock = clock
        table = tables.routing.c
        self._select_number = select(func.max(table.number)).where(table.pipeline_id == pipeline_id)

    def number(self) -> int:
        """Return the number of the newest ruling, and read nothing else; 0 before the first."""
        with self._database.reading() as connection:
            return connection.execute(self._select_number).scalar_one() or 0

    def newest(self) -> Ruling | None:
        """Return the newest ruling; None if there was none yet."""
        history = self.history()
        return history[-1] if history else None

    def in_force(self, declared: Routing) -> Routing:
        """Return the routing in force: the one that was set last, or else the declared one."""
        newest = self.newest()
        return declared if newest is None or newest.routing is None else newest.routing

    def history(self) -> list[Ruling]:
        """List all rulings, oldest first."""
        table = tables.routing.c
        with self._database.reading() as connection:
            rows = connection.execute(
                select(table.number, table.routing, table.since_us, table.by, table.reason)
                .where(table.pipeline_id == self._pipeline_id)
                .order_by(table.number)
            ).all()
        return [
            Ruling(
                number=number,
                routing=None if text is None else routing_from_json(text),
                since=from_us(us),
                by=by,
                reason=why,
            )
            for number, text, us, by, why in rows
        ]

    def put(
        self, routing: Routing | None, *, by: str, reason: str, expected: int | None = None
    ) -> Ruling:
        """Set a routing in place of the one in force, and note that for the audit.

        If the same person set the same routing last, for the same reason, the call changes nothing: a
        request may be repeated.

        Parameters
        ----------
        routing
            A routing that fits the pipeline (:func:`~headwater.spec.serving.routing.check_routing`);
            None returns to the declared one.
        by, reason
            Who decides, and why.
        expected
            Number of the ruling that the caller saw; if it is None, the last write wins.

        Raises
        ------
        NotFoundError
            If it names a version that does not exist.
        ConflictError
            If another ruling came after that one; nothing is changed then.
        """
        for name in () if routing is None else routing.named:
            if name not in (CHAMPION, CHALLENGER):
                self._store.get(name)
        check_note(by, reason)
        now_us = to_us(self._clock.now())
        last = self.newest()
        if last is not None and (last.routing, last.by, last.reason) == (routing, by, reason):
            return last
        text = None if routing is None else routing_to_json(routing)
        with self._database.transaction() as connection:
            newest = connection.execute(self._select_number).scalar_one() or 0
            if expected is not None and newest != expected:
                raise ConflictError(
                    f"the routing of {self._store.pipeline!r} was set meanwhile: by ruling {newest}",
                    hint="look at headwater routing, then decide again",
                )
            connection.execute(
                insert(tables.routing).values(
                    pipeline_id=self._pipeline_id,
                    number=newest + 1,
                    routing=text,
                    since_us=now_us,
                    by=by,
                    reason=reason,
                )
            )
            summary = "as declared" if routing is None else shortly(routing)
            detail = {"routing": summary, "ruling": newest + 1, "reason": reason}
            note(connection, now_us, by, "route", pipeline_id=self._pipeline_id, detail=detail)
        return Ruling(number=newest + 1, routing=routing, since=from_us(now_us), by=by, reason=reason)
