"""The rows of answers: what each person said about a question, or that he skipped it."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from headwater.infra.clock import to_us
from headwater.infra.store.schema import queue_tables
from headwater.spec.data.records import LabelValue, ReceivedLabel

__all__ = ["Answers"]

_VALUE: msgspec.json.Decoder[LabelValue] = msgspec.json.Decoder(LabelValue)


class Answers:
    """The answers to one pipeline's questions, in transactions that callers open.

    Parameters
    ----------
    pipeline_id
        Whose.
    """

    def __init__(self, pipeline_id: int) -> None:
        self._pipeline_id = pipeline_id

    def of(self, connection: Connection, position: int, person: str) -> tuple[bool, LabelValue | None]:
        """Return whether a person has answered or skipped, and his answer; None if he skipped."""
        answer = queue_tables.answer.c
        query = select(answer.value).where(*self._of(position), answer.person == person)
        row = connection.execute(query).one_or_none()
        if row is None or row.value is None:
            return row is not None, None
        return True, _VALUE.decode(row.value)

    def values(self, connection: Connection, position: int) -> list[tuple[str, LabelValue]]:
        """Return each person's newest answer to a question, in the order of the people."""
        answer = queue_tables.answer.c
        query = select(answer.person, answer.value).where(*self._of(position), answer.value.is_not(None))
        rows = connection.execute(query.order_by(answer.turn)).all()
        return [(person, _VALUE.decode(value)) for person, value in rows]

    def write(
        self, connection: Connection, position: int, answers: Mapping[str, ReceivedLabel]
    ) -> list[str]:
        """Write the missing answers, and return whose they are.

        Parameters
        ----------
        connection, position
            The question's.
        answers
            Each person's newest, by turn.
        """
        table, mine = queue_tables.answer, self._of(position)
        query = select(table.c.person, table.c.value).where(*mine)
        stored = {row.person: row.value for row in connection.execute(query).all()}
        new = []
        for turn, (person, received) in enumerate(answers.items()):
            value = msgspec.json.encode(received.label.value)
            if stored.get(person) == value:
                continue
            row = {"at_us": to_us(received.received_at), "turn": turn, "value": value}
            if person in stored:
                connection.execute(update(table).where(*mine, table.c.person == person).values(**row))
            else:
                self._insert(connection, position, person, row)
            new.append(person)
        return new

    def skip(self, connection: Connection, position: int, person: str, now_us: int) -> None:
        """Store that a person skipped a question."""
        self._insert(connection, position, person, {"at_us": now_us})

    def skips(self, connection: Connection, position: int) -> int:
        """Count the people who skipped a question."""
        query = select(func.count()).where(*self._of(position), queue_tables.answer.c.value.is_(None))
        return connection.execute(query).scalar_one()

    def _insert(
        self, connection: Connection, position: int, person: str, row: Mapping[str, Any]
    ) -> None:
        key = {"pipeline_id": self._pipeline_id, "position": position, "person": person}
        connection.execute(insert(queue_tables.answer).values(**key, **row))

    def _of(self, position: int) -> tuple[ColumnElement[bool], ...]:
        answer = queue_tables.answer.c
        return answer.pipeline_id == self._pipeline_id, answer.position == position
