"""The rows of a pipeline's questions: pure SQL, in transactions that callers open."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, delete, exists, func, insert, select, update

from headwater.infra.clock import to_us
from headwater.infra.store import tables
from headwater.spec.data.records import LabelValue, ReceivedLabel
from headwater.spec.serving.queue import Closing, People, Why, closing, required_answers

__all__ = ["Question", "Questions", "QueuePosition"]

_VALUE: msgspec.json.Decoder[LabelValue] = msgspec.json.Decoder(LabelValue)


class Question(NamedTuple):
    """The question about one prediction: the columns of its row, without the pipeline's."""

    position: int
    prediction_id: str
    why: Why
    priority: float
    people: int
    wanted: int
    given: int
    seen: bool
    closed: Closing | None


class QueuePosition(NamedTuple):
    """The position up to which the queue has looked, and the questions that it has dealt."""

    next_position: int
    dealt_random: int
    dealt: int
    labelled: int


_QUESTION = [tables.question.c[name] for name in Question._fields]


class Questions:
    """One pipeline's questions, claims and answers.

    Parameters
    ----------
    pipeline_id, people
        Whose, and how it asks.
    """

    def __init__(self, pipeline_id: int, people: People) -> None:
        self._pipeline_id = pipeline_id
        self._people = people

    def place(self, connection: Connection) -> QueuePosition:
        """Return the queue's position, locked until the transaction ends; make it if it is missing."""
        table = tables.queue
        columns = [table.c[name] for name in QueuePosition._fields]
        query = select(*columns).where(table.c.pipeline_id == self._pipeline_id).with_for_update()
        row = connection.execute(query).one_or_none()
        if row is not None:
            return QueuePosition._make(row)
        place = QueuePosition(0, 0, 0, 0)
        connection.execute(insert(table).values(pipeline_id=self._pipeline_id, **place._asdict()))
        return place

    def move(self, connection: Connection, **columns: Any) -> None:
        """Change columns of the queue's position."""
        mine = tables.queue.c.pipeline_id == self._pipeline_id
        connection.execute(update(tables.queue).where(mine).values(**columns))

    def find(self, connection: Connection, prediction_id: str) -> Question | None:
        """Return the question about a prediction, locked until the transaction ends."""
        query = self._all().where(tables.question.c.prediction_id == prediction_id)
        row = connection.execute(query.with_for_update()).one_or_none()
        return None if row is None else Question._make(row)

    def held(self, connection: Connection, person: str, now_us: int, many: int) -> list[Question]:
        """Return the open questions that a person holds, the first one claimed first."""
        claim = tables.claim.c
        query = (
            self._all()
            .join(tables.claim, self._same(claim))
            .where(tables.question.c.closed.is_(None), claim.person == person, claim.until_us > now_us)
        )
        ordered = query.order_by(claim.until_us, tables.question.c.position).limit(many)
        return [Question._make(row) for row in connection.execute(ordered).all()]

    def free(
        self, connection: Connection, person: str, now_us: int, why: Why, many: int
    ) -> list[Question]:
        """Return the open questions of a stratum that a person may take, the most urgent first.

        Answers and living claims together never exceed what is wanted; nobody is asked again what he
        answered or skipped.
        """
        question, claim, answer = tables.question.c, tables.claim.c, tables.answer.c
        holders = self._holders(now_us).scalar_subquery()
        answered = exists().where(self._same(answer), answer.person == person)
        holds = exists().where(self._same(claim), claim.person == person, claim.until_us > now_us)
        query = self._open(why).where(question.given + holders < question.wanted, ~answered, ~holds)
        ordered = query.order_by(question.priority.desc(), question.position).limit(many)
        return [Question._make(row) for row in connection.execute(ordered).all()]

    def has_room(self, connection: Connection, question: Question, now_us: int) -> bool:
        """Return whether a question needs another answer beyond those given and those claimed."""
        claim = tables.claim.c
        living_claims = select(func.count()).where(
            claim.pipeline_id == self._pipeline_id,
            claim.position == question.position,
            claim.until_us > now_us,
        )
        holders = connection.execute(living_claims).scalar_one()
        return question.closed is None and question.given + holders < question.wanted

    def claimed_until(self, connection: Connection, question: Question, person: str) -> int | None:
        """Return the end of a person's claim of a question; None if he never claimed it."""
        claim = tables.claim.c
        mine = self._of(claim, question, person)
        return connection.execute(select(claim.until_us).where(*mine)).scalar_one_or_none()

    def take(self, connection: Connection, question: Question, person: str, until_us: int) -> None:
        """Claim a question for a person, or prolong his claim."""
        row = (self._pipeline_id, question.position, person)
        changed = connection.execute(
            update(tables.claim)
            .where(*self._of(tables.claim.c, question, person))
            .values(until_us=until_us)
        )
        if not changed.rowcount:
            names = ("pipeline_id", "position", "person")
            values = dict(zip(names, row, strict=True))
            connection.execute(insert(tables.claim).values(**values, until_us=until_us))
        if not question.seen:
            self._set(connection, question, seen=True)
            place = self.place(connection)
            dealt_random = place.dealt_random + (question.why == "random")
            self.move(connection, dealt=place.dealt + 1, dealt_random=dealt_random)

    def answer_of(
        self, connection: Connection, question: Question, person: str
    ) -> tuple[bool, LabelValue | None]:
        """Return whether a person has answered or skipped, and his answer; None if he skipped."""
        answer = tables.answer.c
        query = select(answer.value).where(*self._of(answer, question, person))
        row = connection.execute(query).one_or_none()
        if row is None or row.value is None:
            return row is not None, None
        return True, _VALUE.decode(row.value)

    def skip(self, connection: Connection, question: Question, person: str, now_us: int) -> None:
        """Store that a person skipped a question, and free it for others."""
        connection.execute(
            insert(tables.answer).values(
                pipeline_id=self._pipeline_id, position=question.position, person=person, at_us=now_us
            )
        )
        self._drop_claims(connection, question, [person])
        if question.closed is None:
            skips = self._skips(connection, question)
            closed = closing(question.wanted, question.given, skips)
            self._set(connection, question, closed=closed)

    def follow(
        self, connection: Connection, question: Question, labels: Sequence[ReceivedLabel]
    ) -> bool:
        """Bring the rows up to date with the labels of a prediction, in the order in which they came.

        A label of a person is his answer, wherever it came from. One of the environment, or of a person
        without a name, closes the question: its truth is known. A timeout tells nothing.

        Returns
        -------
        bool
            Whether anything was changed.
        """
        truths = [received for received in labels if received.label.source != "timeout"]
        answers = {
            received.label.by: received
            for received in truths
            if received.label.source == "human" and received.label.by
        }
        changed = self._write_answers(connection, question, answers)
        if changed:
            values = [received.label.value for received in answers.values()]
            enough = required_answers(self._people, question.people, values)
            closed = closing(enough, len(answers), self._skips(connection, question))
            columns = {"wanted": enough, "given": len(answers), "seen": True}
            self._set(connection, question, closed=closed, **columns)
            question = question._replace(closed=closed, seen=True)
        if any(one.label.source == "natural" or not one.label.by for one in truths):
            return self._overtake(connection, question) or changed
        return changed

    def remove(self, connection: Connection, question: Question) -> None:
        """Delete a question that nobody has seen."""
        table = tables.question.c
        mine = (table.pipeline_id == self._pipeline_id, table.position == question.position)
        connection.execute(delete(tables.question).where(*mine))

    def trim(self, connection: Connection, places: dict[Why, int]) -> None:
        """Delete the least urgent unseen questions, down to the places of each stratum."""
        table = tables.question.c
        mine = (table.pipeline_id == self._pipeline_id, table.closed.is_(None))
        for why, most in places.items():
            stratum = (*mine, table.why == why)
            count = connection.execute(select(func.count()).where(*stratum)).scalar_one()
            if count > most:
                least = select(table.position).where(*stratum, ~table.seen)
                least = least.order_by(table.priority, table.position.desc()).limit(count - most)
                connection.execute(
                    delete(tables.question).where(
                        table.pipeline_id == self._pipeline_id, table.position.in_(least)
                    )
                )

    def _write_answers(
        self, connection: Connection, question: Question, answers: dict[str, ReceivedLabel]
    ) -> bool:
        """Write the missing answers; `answers` holds each person's newest, by turn."""
        table = tables.answer
        mine = (table.c.pipeline_id == self._pipeline_id, table.c.position == question.position)
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
                key = {"pipeline_id": self._pipeline_id, "position": question.position}
                connection.execute(insert(table).values(**key, person=person, **row))
            new.append(person)
        self._drop_claims(connection, question, new)
        return bool(new)

    def _overtake(self, connection: Connection, question: Question) -> bool:
        if question.closed == "labelled":
            return False
        if question.closed is None:
            self.move(connection, labelled=self.place(connection).labelled + 1)
        if question.seen:
            self._set(connection, question, closed="labelled")
            claim = tables.claim.c
            mine = (claim.pipeline_id == self._pipeline_id, claim.position == question.position)
            connection.execute(delete(tables.claim).where(*mine))
        else:
            self.remove(connection, question)
        return True

    def _drop_claims(self, connection: Connection, question: Question, persons: Sequence[str]) -> None:
        for person in persons:
            mine = self._of(tables.claim.c, question, person)
            connection.execute(delete(tables.claim).where(*mine))

    def _skips(self, connection: Connection, question: Question) -> int:
        answer = tables.answer.c
        query = select(func.count()).where(
            answer.pipeline_id == self._pipeline_id,
            answer.position == question.position,
            answer.value.is_(None),
        )
        return connection.execute(query).scalar_one()

    def _set(self, connection: Connection, question: Question, **columns: Any) -> None:
        table = tables.question.c
        mine = (table.pipeline_id == self._pipeline_id, table.position == question.position)
        connection.execute(update(tables.question).where(*mine).values(**columns))

    def _all(self) -> Select[Any]:
        return select(*_QUESTION).where(tables.question.c.pipeline_id == self._pipeline_id)

    def _open(self, why: Why) -> Select[Any]:
        return self._all().where(tables.question.c.closed.is_(None), tables.question.c.why == why)

    def _holders(self, now_us: int) -> Select[tuple[int]]:
        claim = tables.claim.c
        return select(func.count()).where(self._same(claim), claim.until_us > now_us)

    @staticmethod
    def _same(other: Any) -> ColumnElement[bool]:
        question = tables.question.c
        same: ColumnElement[bool] = (other.pipeline_id == question.pipeline_id) & (
            other.position == question.position
        )
        return same

    def _of(self, table: Any, question: Question, person: str) -> tuple[ColumnElement[bool], ...]:
        return (
            table.pipeline_id == self._pipeline_id,
            table.position == question.position,
            table.person == person,
        )
