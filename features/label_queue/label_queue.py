"""The label queue: questions to people, claimed with a lease, answered or skipped."""

from datetime import timedelta
from typing import Literal

from sqlalchemy import Connection

from headwater.features.label_queue.dealing import Dealing, QuestionLease
from headwater.features.label_queue.person_labels import PersonLabels
from headwater.features.label_queue.question_selection import (
    STEP_RECORDS,
    QuestionSelection,
    QueueFilling,
)
from headwater.features.label_queue.questions import Question, Questions
from headwater.features.label_queue.queue_statistics import counts
from headwater.features.label_queue.seen_classes import SeenClasses, known_classes
from headwater.features.label_queue.shared_answers import SharedAnswers
from headwater.features.record.encoder import RecordEncoder
from headwater.infra.clock import Clock, to_us
from headwater.infra.store.database import Database
from headwater.spec.data.records import LabelValue
from headwater.spec.data.values import check_name
from headwater.spec.duration import duration
from headwater.spec.errors import (
    DeclarationError,
    NotFoundError,
    NotReadyError,
    SchemaError,
)
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.queue import (
    LONGEST_LEASE_S,
    MOST_CLAIMED,
    check_person,
)
from headwater.spec.serving.queue_results import ClaimedQuestion, KnownClass, QueueStatistics

__all__ = ["LabelQueue"]

_SHARED_AT_ONCE = 5


class LabelQueue:
    """The queue that asks people for the labels of one pipeline.

    Made by :meth:`headwater.features.log.FeatureLog.queue`, or by a worker of the service when it is
    first asked. Any number of processes and threads may use one queue at a time.

    An answer is a label first: recorded in the inbox, with source ``"human"``, `by` the person, and a
    key of the person and his change of mind. The rows follow the labels, whenever a question is touched
    again, so that a process killed between the two loses nothing, and no person is asked twice. Each
    answer is a label at once; where two people differ a third is asked, whose label, being the newest
    revision, counts.

    Parameters
    ----------
    pipeline, pipeline_id
        Whose labels, and its number in the database.
    recorder, database, clock
        Where labels and rows go, and the time, by which leases end.
    step_records
        How many records one step of :meth:`fill` looks at.

    Raises
    ------
    DeclarationError
        If the pipeline has no label queue.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        pipeline_id: int,
        recorder: RecordEncoder,
        database: Database,
        clock: Clock,
        *,
        step_records: int = STEP_RECORDS,
    ) -> None:
        if pipeline.people is None:
            raise DeclarationError(
                f"pipeline {pipeline.name!r} has no label queue", hint="declare people=People() on it"
            )
        self._pipeline = pipeline
        self._people = pipeline.people
        self._pipeline_id = pipeline_id
        self._database = database
        self._clock = clock
        self._questions = Questions(pipeline_id, pipeline.people)
        self._labels = PersonLabels(recorder, clock)
        self._classes = SeenClasses(pipeline_id)
        self._shared = SharedAnswers(self._questions, self._labels, recorder, database)
        self._dealing = Dealing(pipeline.people, pipeline.task, self._questions, recorder)
        selection = QuestionSelection(
            pipeline, pipeline_id, self._questions, self._classes, step_records=step_records
        )
        self._filling = QueueFilling(selection, self._shared, database)

    def fill(self, most_steps: int | None = None) -> int:
        """Ask about the predictions that were sequenced since the last time.

        The keeper of a service calls it; without a service, whoever asks people does. Each step reads
        so many records without a lock, and writes what comes of them in a short transaction; the place
        is kept in the database. Any number of processes may fill one queue.

        Parameters
        ----------
        most_steps
            How many steps at most; None goes on to the end.

        Returns
        -------
        int
            How many records were looked at.
        """
        return self._filling.fill(most_steps)

    def claim(self, person: str, many: int = 1, lease_s: int | None = None) -> list[ClaimedQuestion]:
        """Claim questions for a person, who holds them until the lease ends.

        It takes questions that are there, and fills nothing: see :meth:`fill`. What he holds already
        comes first, with a new lease: a claim whose answer was lost may be sent again.

        Parameters
        ----------
        person, many
            Who, and how many questions he is to hold.
        lease_s
            How long, in seconds; as declared if not given.

        Returns
        -------
        list of ClaimedQuestion
            As many as there are, at most. None means that nothing waits, of all that was sequenced.

        Raises
        ------
        SchemaError
            If a number is out of bounds, or the name is none.
        NotReadyError
            If there is no question, and the queue has not looked at all sequenced records yet.
        StorageError
            If the database or the inbox is away.
        """
        check_person(person)
        _check_bounds("many", many, MOST_CLAIMED)
        if lease_s is not None:
            _check_bounds("lease_s", lease_s, LONGEST_LEASE_S)
        duration_ = duration(self._people.lease) if lease_s is None else timedelta(seconds=lease_s)
        now = self._clock.now()
        lease = QuestionLease(person, to_us(now), to_us(now + duration_))
        dealt: dict[int, ClaimedQuestion] = {}
        while len(dealt) < many:
            with self._database.transaction() as connection:
                more = self._dealing.deal(connection, lease, dealt, many - len(dealt))
            if not more:
                break
            dealt |= more
        if not dealt:
            with self._database.reading() as connection:
                _check_filled(self._pipeline.name, self._questions.progress.behind(connection))
        return list(dealt.values())

    def answer(self, person: str, prediction_id: str, value: LabelValue) -> Literal["recorded", "known"]:
        """Record a person's answer; durable when this returns.

        It goes to all predictions that the question stands for, each with a label of its own: to some
        hundred before this returns, and to the others when the queue is filled. The same answer again
        is known already. Another one is a change of mind, and a revision.

        Parameters
        ----------
        person
            Who holds the question, or has answered it.
        prediction_id, value
            The prediction, and its truth.

        Raises
        ------
        SchemaError
            If the value does not fit the task, or the name is none.
        NotFoundError
            If nothing is asked about that prediction.
        ConflictError
            If the person did not claim it, its lease ended and it went to others, or its truth came
            from elsewhere meanwhile.
        StorageError
            If the database or the inbox is away. Send it again: it is recorded once.
        """
        check_person(person)
        check_name(prediction_id, "prediction_id")
        self._labels.check(person, prediction_id, value)
        if self._pipeline.task == "regression":
            value = float(value)
        with self._database.transaction() as connection:
            self._shared.follow(connection, _found(self._questions, connection, prediction_id))
            question = _found(self._questions, connection, prediction_id)
            now_us = to_us(self._clock.now())
            refusal = self._dealing.refusal(connection, question, person, now_us)
        if refusal is not None:
            raise refusal
        recorded = self._labels.record([(person, value)], [prediction_id])
        self._shared.follow_labels([prediction_id])
        self._shared.record(_SHARED_AT_ONCE, question.position)
        return "recorded" if recorded else "known"

    def skip(self, person: str, prediction_id: str) -> None:
        """Skip a question for good; the queue asks others until three people have skipped it.

        Raises
        ------
        SchemaError
            If the name is none.
        NotFoundError
            If nothing is asked about that prediction.
        ConflictError
            If the person did not claim it, or has answered it.
        """
        check_person(person)
        check_name(prediction_id, "prediction_id")
        with self._database.transaction() as connection:
            question = _found(self._questions, connection, prediction_id)
            self._dealing.skip(connection, question, person, to_us(self._clock.now()))

    def counts(self) -> QueueStatistics:
        """Count open and answered questions, and measure agreement."""
        with self._database.reading() as connection:
            now_us = to_us(self._clock.now())
            return counts(connection, self._pipeline_id, self._people, self._pipeline.task, now_us)

    def classes(self) -> list[KnownClass]:
        """Return the classes that people may answer with, ten thousand at most.

        Of a multiclass task: those declared, and where others are taken, those that labels have had.

        Raises
        ------
        NotFoundError
            If the task is a regression: its answers are numbers.
        """
        with self._database.reading() as connection:
            return known_classes(connection, self._pipeline, self._classes)


def _found(questions: Questions, connection: Connection, prediction_id: str) -> Question:
    question = questions.find(connection, prediction_id)
    if question is None:
        raise NotFoundError(f"nothing is asked about prediction {prediction_id!r}", hint="claim first")
    return question


def _check_filled(pipeline: str, behind: int) -> None:
    """Refuse to call a queue empty while records wait that it has not looked at."""
    if behind > 0:
        raise NotReadyError(
            f"the label queue of {pipeline!r} is not filled yet: {behind:,} sequenced records wait",
            hint="claim again in a moment: headwater serve fills it; without it, LabelQueue.fill()",
        )


def _check_bounds(name: str, value: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise SchemaError(
            f"{name}: {value!r} is not a number from 1 to {most:,}", hint=f"send {name} within"
        )
