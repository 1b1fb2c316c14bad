"""The declarations of a pipeline: rows by hash, and moves that say which one is in force since when."""

from datetime import datetime

import msgspec
from sqlalchemy import Connection, func, insert, select

from headwater.infra.clock import Clock, from_us, to_us
from headwater.infra.store.audit import check_note, note
from headwater.infra.store.database import Database
from headwater.infra.store.schema import declaration_tables
from headwater.spec.errors import ConflictError
from headwater.spec.statement import Statement

__all__ = ["Declarations", "InForce"]


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """A declaration that is in force.

    Parameters
    ----------
    number
        Counts the pipeline's declarations; one that comes back keeps its number.
    move
        Counts how often another one was put in force.
    statement
        What the pipeline said.
    begins_line
        Whether somebody said that the next update may begin a new line, if it has to.
    since, by
        When it was put in force, and by whom.
    """

    number: int
    move: int
    statement: Statement
    begins_line: bool
    since: datetime
    by: str


class Declarations:
    """The declarations of one pipeline.

    Parameters
    ----------
    pipeline, pipeline_id
        Its name, and its number in the database.
    database, clock
        Where the rows are, and the time.
    """

    def __init__(self, pipeline: str, pipeline_id: int, database: Database, clock: Clock) -> None:
        self._pipeline = pipeline
        self._pipeline_id = pipeline_id
        self._database = database
        self._clock = clock

    def in_force(self) -> InForce | None:
        """Return the declaration in force; None if none was put in force yet."""
        with self._database.reading() as connection:
            return self._newest(connection)

    def put_in_force(
        self, statement: Statement, *, expected: InForce | None, by: str, begins_line: bool = False
    ) -> InForce:
        """Put a declaration in force, if the expected one still is.

        Parameters
        ----------
        statement
            What the pipeline says now.
        expected
            What was in force when the caller looked.
        by
            Who asks, for the record.
        begins_line
            Whether the next update may begin a new line, if it has to.

        Raises
        ------
        ConflictError
            If another process put another one in force meanwhile.
        """
        check_note(by)
        now_us = to_us(self._clock.now())
        with self._database.transaction() as connection:
            newest = self._newest(connection)
            if newest is not None and (newest.statement, newest.begins_line) == (statement, begins_line):
                return newest
            if (newest and newest.move) != (expected and expected.move):
                raise ConflictError(
                    f"another process declared pipeline {self._pipeline!r} anew meanwhile",
                    hint="see that both have the same declaration, then do it again",
                )
            number = self._numbered(connection, statement, by, now_us)
            move = 1 if newest is None else newest.move + 1
            connection.execute(
                insert(declaration_tables.declared).values(
                    pipeline_id=self._pipeline_id,
                    move=move,
                    declaration=number,
                    begins_line=begins_line,
                    since_us=now_us,
                    by=by,
                )
            )
            detail = {"declaration": number, "begins_line": begins_line}
            note(connection, now_us, by, "declare", pipeline_id=self._pipeline_id, detail=detail)
        return InForce(
            number=number,
            move=move,
            statement=statement,
            begins_line=begins_line,
            since=from_us(now_us),
            by=by,
        )

    def _newest(self, connection: Connection) -> InForce | None:
        move, row = declaration_tables.declared.c, declaration_tables.declaration.c
        query = (
            select(row.number, row.content, move.move, move.begins_line, move.since_us, move.by)
            .join_from(
                declaration_tables.declared,
                declaration_tables.declaration,
                (row.pipeline_id == move.pipeline_id) & (row.number == move.declaration),
            )
            .where(move.pipeline_id == self._pipeline_id)
            .order_by(move.move.desc())
            .limit(1)
        )
        found = connection.execute(query).one_or_none()
        if found is None:
            return None
        return InForce(
            number=found.number,
            move=found.move,
            statement=Statement.from_json(found.content),
            begins_line=found.begins_line,
            since=from_us(found.since_us),
            by=found.by,
        )

    def _numbered(self, connection: Connection, statement: Statement, by: str, now_us: int) -> int:
        """Return the number of a declaration, which is inserted if it is new."""
        row = declaration_tables.declaration.c
        mine = row.pipeline_id == self._pipeline_id
        known = connection.execute(
            select(row.number).where(mine, row.hash == statement.hash)
        ).scalar_one_or_none()
        if known is not None:
            return int(known)
        last = connection.execute(select(func.max(row.number)).where(mine)).scalar_one()
        number = (last or 0) + 1
        connection.execute(
            insert(declaration_tables.declaration).values(
                pipeline_id=self._pipeline_id,
                number=number,
                hash=statement.hash,
                content=statement.to_json(),
                since_us=now_us,
                by=by,
            )
        )
        return number
