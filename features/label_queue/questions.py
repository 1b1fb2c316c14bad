"""The rows of a pipeline's questions: pure SQL, in transactions that callers open."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, func, select, update

from headwater.features.label_queue.answers import Answers
from headwater.features.label_queue.claims import Claims
from headwater.features.label_queue.equal_predictions import EqualPredictions
from headwater.features.label_queue.person_labels import known_from_elsewhere
from headwater.features.label_queue.queue_progress import QueueProgress
from headwater.infra.store.database import insert_many
from headwater.infra.store.schema import queue_tables
from headwater.spec.data.records import ReceivedLabel
from headwater.spec.serving.queue import Closing, People, Why, closing, required_answers

__all__ = ["Question", "Questions"]


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
    shown: str


_QUESTION = [queue_tables.question.c[name] for name in Question._fields]


class Questions:
    """One pipeline's questions, with their claims and answers.

    Parameters
    ----------
    pipeline_id, people
        Whose, and how it asks.

    Attributes
    ----------
    claims, answers, equals
        Of the questions, by position.
    progress
        How far the queue has looked, and how many questions it has dealt.
    """

    def __init__(self, pipeline_id: int, people: People) -> None:
        self._pipeline_id = pipeline_id
        self._people = people
        self.claims = Claims(pipeline_id)
        self.answers = Answers(pipeline_id)
        self.equals = EqualPredictions(pipeline_id)
        self.progress = QueueProgress(pipeline_id)

    def add(self, connection: Connection, questions: Sequence[Question]) -> None:
        """Insert questions."""
        insert_many(connection, queue_tables.question, [(self._pipeline_id, *one) for one in questions])

    def find(self, connection: Connection, prediction_id: str) -> Question | None:
        """Return the question about a prediction, locked until the transaction ends."""
        query = self._all().where(queue_tables.question.c.prediction_id == prediction_id)
        row = connection.execute(query.with_for_update()).one_or_none()
        return None if row is None else Question._make(row)

    def held(self, connection: Connection, person: str, now_us: int, many: int) -> list[Question]:
        """Return the open questions that a person holds, the first one claimed first."""
        claim = queue_tables.claim.c
        query = (
            self._all()
            .join(queue_tables.claim, self._same(claim))
            .where(
                queue_tables.question.c.closed.is_(None), claim.person == person, claim.until_us > now_us
            )
        )
        ordered = query.order_by(claim.until_us, queue_tables.question.c.position).limit(many)
        return [Question._make(row) for row in connection.execute(ordered).all()]

    def free(
        self, connection: Connection, person: str, now_us: int, why: Why, many: int
    ) -> list[Question]:
        """Return the open questions of a stratum that a person may take, the most urgent first.

        Answers and living claims together never exceed what is wanted; no person is asked again what he
        answered or skipped.
        """
        question, claim, answer = queue_tables.question.c, queue_tables.claim.c, queue_tables.answer.c
        holders = self.claims.living(question.position, now_us).scalar_subquery()
        answered = exists().where(self._same(answer), answer.person == person)
        holds = exists().where(self._same(claim), claim.person == person, claim.until_us > now_us)
        query = self._open(why).where(question.given + holders < question.wanted, ~answered, ~holds)
        ordered = query.order_by(question.priority.desc(), question.position).limit(many)
        return [Question._make(row) for row in connection.execute(ordered).all()]

    def has_room(self, connection: Connection, question: Question, now_us: int) -> bool:
        """Return whether a question needs another answer beyond those given and those claimed."""
        living = self.claims.living(question.position, now_us)
        holders = connection.execute(living).scalar_one()
        return question.closed is None and question.given + holders < question.wanted

    def take(self, connection: Connection, question: Question, person: str, until_us: int) -> None:
        """Claim a question for a person, or prolong his claim."""
        self.claims.put(connection, question.position, person, until_us)
        if not question.seen:
            self._set(connection, question, seen=True)
            place = self.progress.place(connection)
            dealt_random = place.dealt_random + (question.why == "random")
            self.progress.move(connection, dealt=place.dealt + 1, dealt_random=dealt_random)

    def skip(self, connection: Connection, question: Question, person: str, now_us: int) -> None:
        """Store that a person skipped a question, and free it for others."""
        self.answers.skip(connection, question.position, person, now_us)
        self.claims.drop(connection, question.position, person)
        if question.closed is None:
            skips = self.answers.skips(connection, question.position)
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
        answers = {
            received.label.by: received
            for received in labels
            if received.label.source == "human" and received.label.by
        }
        changed = self.answers.write(connection, question.position, answers)
        for person in changed:
            self.claims.drop(connection, question.position, person)
        if changed:
            values = [received.label.value for received in answers.values()]
            enough = required_answers(self._people, question.people, values)
            closed = closing(enough, len(answers), self.answers.skips(connection, question.position))
            columns = {"wanted": enough, "given": len(answers), "seen": True}
            self._set(connection, question, closed=closed, **columns)
            self.equals.lack_labels(connection, question.position)
            question = question._replace(closed=closed, seen=True, given=len(answers))
        if known_from_elsewhere(labels):
            return self._overtake(connection, question) or bool(changed)
        return bool(changed)

    def remove(self, connection: Connection, question: Question) -> None:
        """Delete a question that nobody has seen; an equal prediction takes its place."""
        self._hand_over(connection, question)
        table = queue_tables.question.c
        mine = (table.pipeline_id == self._pipeline_id, table.position == question.position)
        connection.execute(delete(queue_tables.question).where(*mine))

    def trim(self, connection: Connection, places: dict[Why, int]) -> None:
        """Delete the least urgent unseen questions, down to the places of each stratum."""
        table = queue_tables.question.c
        mine = (table.pipeline_id == self._pipeline_id, table.closed.is_(None))
        for why, most in places.items():
            stratum = (*mine, table.why == why)
            count = connection.execute(select(func.count()).where(*stratum)).scalar_one()
            if count > most:
                least = select(table.position).where(*stratum, ~table.seen)
                least = least.order_by(table.priority, table.position.desc()).limit(count - most)
                self.equals.remove_of(connection, least)
                connection.execute(
                    delete(queue_tables.question).where(
                        table.pipeline_id == self._pipeline_id, table.position.in_(least)
                    )
                )

    def _overtake(self, connection: Connection, question: Question) -> bool:
        if question.closed == "labelled":
            return False
        if question.closed is None:
            self.progress.move(connection, labelled=self.progress.place(connection).labelled + 1)
        if question.seen:
            if question.closed is None and not question.given:
                self._hand_over(connection, question)
            self._set(connection, question, closed="labelled")
            self.claims.drop(connection, question.position)
        else:
            self.remove(connection, question)
        return True

    def _hand_over(self, connection: Connection, question: Question) -> None:
        """Ask about the first equal prediction in the place of a question's own."""
        heir = self.equals.hand_over(connection, question.position)
        if heir is not None:
            asked = question._replace(position=heir.position, prediction_id=heir.prediction_id)
            anew = asked._replace(wanted=question.people, given=0, seen=False, closed=None)
            self.add(connection, [anew])

    def _set(self, connection: Connection, question: Question, **columns: Any) -> None:
        table = queue_tables.question.c
        mine = (table.pipeline_id == self._pipeline_id, table.position == question.position)
        connection.execute(update(queue_tables.question).where(*mine).values(**columns))

    def _all(self) -> Select[Any]:
        return select(*_QUESTION).where(queue_tables.question.c.pipeline_id == self._pipeline_id)

    def _open(self, why: Why) -> Select[Any]:
        return self._all().where(
            queue_tables.question.c.closed.is_(None), queue_tables.question.c.why == why
        )

    @staticmethod
    def _same(other: Any) -> ColumnElement[bool]:
        question = queue_tables.question.c
        same: ColumnElement[bool] = (other.pipeline_id == question.pipeline_id) & (
            other.position == question.position
        )
        return same
