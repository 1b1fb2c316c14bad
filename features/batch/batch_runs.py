"""The runs of batch prediction: one row a run, with its state and the number of answers read.

A run is *begun* while its table is scored: nobody knows of it, and if its process ends it leaves files
and a row that the next run removes. It is *staged* when all its answers are in storage: from then on it
is carried to its end, by whoever comes. It is *published* when all its predictions are in the log.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from headwater.infra.clock import from_us, to_us
from headwater.infra.store.database import Database
from headwater.infra.store.lease import Lease, check
from headwater.infra.store.schema import tables
from headwater.spec.errors import FencedError

__all__ = ["BatchRun", "BatchRuns", "State"]

State = Literal["begun", "staged", "published"]
_TABLE = tables.batch_run


class BatchRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run over a table.

    Parameters
    ----------
    number
        From 1.
    id
        Names its files, and is in the ids of its predictions.
    state
        How far it is.
    version
        Which one predicted.
    at
        When its predictions count as served.
    by
        Who had it run.
    rows, parts
        How many predictions it has, and in how many files.
    sha256
        Of the file that finds an answer; None until it is staged.
    published_at
        When its answers could be looked up; None before.
    read
        How many of its predictions somebody has looked up.
    kept
        Whether its files are in storage.
    """

    number: int
    id: str
    state: State
    version: str
    at: datetime
    by: str
    rows: int = 0
    parts: int = 0
    sha256: bytes | None = None
    published_at: datetime | None = None
    read: int = 0
    kept: bool = True


class BatchRuns:
    """The runs of one pipeline.

    Parameters
    ----------
    pipeline_id, database
        Whose, and where the rows are.
    """

    def __init__(self, pipeline_id: int, database: Database) -> None:
        self._pipeline_id = pipeline_id
        self._database = database

    def begin(self, token: str, version: str, at: datetime, by: str, lease: Lease) -> BatchRun:
        """Begin a run under the next number.

        Parameters
        ----------
        token
            Random text, so that nobody can take the ids of its predictions before it does.
        version, at, by
            As in :class:`BatchRun`.
        lease
            That of the pipeline's batch predictions.

        Raises
        ------
        FencedError
            If the lease was taken over.
        """
        newest = select(func.max(_TABLE.c.number)).where(_TABLE.c.pipeline_id == self._pipeline_id)
        with self._database.transaction() as connection:
            check(connection, lease)
            number = (connection.execute(newest).scalar_one() or 0) + 1
            run = BatchRun(
                number=number, id=f"{number}-{token}", state="begun", version=version, at=at, by=by
            )
            connection.execute(insert(_TABLE).values(pipeline_id=self._pipeline_id, **_columns(run)))
        return run

    def advance(self, run: BatchRun, lease: Lease) -> None:
        """Store the state of a run.

        Raises
        ------
        FencedError
            If the lease was taken over, or somebody removed the run.
        """
        with self._database.transaction() as connection:
            check(connection, lease)
            if self._set(connection, run.number, _columns(run)) == 0:
                raise FencedError(
                    f"batch run {run.id} was removed by another process",
                    hint="let the newer process go on; this one has logged nothing",
                )

    def remove(self, run: BatchRun, lease: Lease) -> None:
        """Delete a run that was begun, and never staged.

        Raises
        ------
        FencedError
            If the lease was taken over.
        """
        with self._database.transaction() as connection:
            check(connection, lease)
            connection.execute(
                delete(_TABLE).where(
                    _TABLE.c.pipeline_id == self._pipeline_id,
                    _TABLE.c.number == run.number,
                    _TABLE.c.state == "begun",
                )
            )

    def in_state(self, state: State) -> list[BatchRun]:
        """Return the runs in a state, oldest first."""
        return self._select(_TABLE.c.state == state)

    def newest(self, last: int) -> list[BatchRun]:
        """Return the newest runs, oldest first."""
        return self._select(last=last)

    def serving(self) -> BatchRun | None:
        """Return the run whose answers are looked up: the newest that is published."""
        published = self._select(_TABLE.c.state == "published", last=1)
        return published[0] if published else None

    def count_read(self, number: int, read: int) -> None:
        """Store how many of a run's predictions were looked up; the number never falls."""
        with self._database.transaction() as connection:
            connection.execute(
                update(_TABLE)
                .where(
                    _TABLE.c.pipeline_id == self._pipeline_id,
                    _TABLE.c.number == number,
                    _TABLE.c.read < read,
                )
                .values(read=read)
            )

    def _select(self, *where: Any, last: int | None = None) -> list[BatchRun]:
        query = select(_TABLE).where(_TABLE.c.pipeline_id == self._pipeline_id, *where)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(_TABLE.c.number.desc()).limit(last)).all()
        return [_run(row) for row in reversed(rows)]

    def _set(self, connection: Connection, number: int, values: dict[str, Any]) -> int:
        del values["read"]  # others count it meanwhile
        where = (_TABLE.c.pipeline_id == self._pipeline_id) & (_TABLE.c.number == number)
        return connection.execute(update(_TABLE).where(where).values(**values)).rowcount


def _columns(run: BatchRun) -> dict[str, Any]:
    values = msgspec.structs.asdict(run)
    published_at = values.pop("published_at")
    values["at_us"] = to_us(values.pop("at"))
    return values | {"published_at_us": None if published_at is None else to_us(published_at)}


def _run(row: Row[Any]) -> BatchRun:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    del values["pipeline_id"]
    at, published_at_us = from_us(values.pop("at_us")), values.pop("published_at_us")
    published_at = None if published_at_us is None else from_us(published_at_us)
    return BatchRun(**values, at=at, published_at=published_at)
