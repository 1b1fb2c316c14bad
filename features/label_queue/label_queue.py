"""The label queue: questions to people, claimed with a lease, answered or skipped."""

from datetime import timedelta
from typing import Literal

from sqlalchemy import Connection

from headwater.features.label_queue.dealing import Dealing
from headwater.features.label_queue.person_labels import PersonLabels
from headwater.features.label_queue.question_selection import STEP_RECORDS, QuestionSelection
from headwater.features.label_queue.questions import Question, Questions
from headwater.features.label_queue.queue_statistics import counts
from headwater.features.record.encoder import RecordEncoder
from headwater.infra.clock import Clock, from_us, to_us
from headwater.infra.store.database import Database
from headwater.spec.data.records import LabelValue
from headwater.spec.data.values import check_name
from headwater.spec.duration import duration
from headwater.spec.errors import (
    DeclarationError,
    NotFoundError,
    SchemaError,
)
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.queue import (
    LONGEST_LEASE_S,
    MOST_CLAIMED,
    check_person,
)
from headwater.spec.serving.queue_results import ClaimedQuestion, QueueStatistics

__all__ = ["LabelQueue"]

_STEPS_A_CLAIM = 10


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
        self._recorder = recorder
        self._database = database
        self._clock = clock
        self._questions = Questions(pipeline_id, pipeline.people)
        self._labels = PersonLabels(recorder, clock)
        self._dealing = Dealing(pipeline.people, pipeline.task, self._questions, recorder)
        self._filling = QuestionSelection(
            pipeline, pipeline_id, self._questions, recorder, step_records=step_records
        )

    def fill(self, most_steps: int | None = None) -> int:
        """Ask about the predictions that were sequenced since the last time.

        Each step is one transaction, of so many records; the place is kept in the database.

        Parameters
        ----------
        most_steps
            How many steps at most; None goes on to the end.

        Returns
        -------
        int
            How many records were looked at.
        """
        total, steps = 0, 0
        while most_steps is None or steps < most_steps:
            with self._database.transaction() as connection:
                records = self._filling.step(connection)
            total, steps = total + records, steps + 1
            if not records:
                break
        return total

    def claim(self, person: str, many: int = 1, lease_s: int | None = None) -> list[ClaimedQuestion]:
        """Claim questions for a person, who holds them until the lease ends.

        What he holds already comes first, with a new lease: a claim whose answer was lost may be sent
        again.

        Parameters
        ----------
        person
            Who.
        many
            How many he is to hold.
        lease_s
            How long, in seconds; as declared if not given.

        Returns
        -------
        list of Asked
            As many as there are, at most.

        Raises
        ------
        SchemaError
            If a number is out of bounds, or the name is none.
        StorageError
            If the database or the inbox is away.
        """
        check_person(person)
        _check_bounds("many", many, MOST_CLAIMED)
        if lease_s is not None:
            _check_bounds("lease_s", lease_s, LONGEST_LEASE_S)
        self.fill(_STEPS_A_CLAIM)
        lease = duration(self._people.lease) if lease_s is None else timedelta(seconds=lease_s)
        with self._database.transaction() as connection:
            now_us = to_us(self._clock.now())
            until_us = to_us(from_us(now_us) + lease)
            return self._dealing.deal(connection, person, many, now_us, until_us)

    def answer(self, person: str, prediction_id: str, value: LabelValue) -> Literal["recorded", "known"]:
        """Record a person's answer; durable when this returns.

        The same answer again is known already. Another one is a change of mind, and a revision.

        Parameters
        ----------
        person
            Who holds the question, or has answered it.
        prediction_id
            Whose truth it is.
        value
            The truth.

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
            self._follow(connection, self._question(connection, prediction_id))
            question = self._question(connection, prediction_id)
            now_us = to_us(self._clock.now())
            refusal = self._dealing.refusal(connection, question, person, now_us)
        if refusal is not None:
            raise refusal
        recorded = self._labels.record(person, prediction_id, value)
        with self._database.transaction() as connection:
            found = self._questions.find(connection, prediction_id)
            if found is not None:
                self._follow(connection, found)
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
            question = self._question(connection, prediction_id)
            self._dealing.skip(connection, question, person, to_us(self._clock.now()))

    def counts(self) -> QueueStatistics:
        """Count open and answered questions, and measure agreement."""
        with self._database.reading() as connection:
            now_us = to_us(self._clock.now())
            return counts(connection, self._pipeline_id, self._people, self._pipeline.task, now_us)

    def _follow(self, connection: Connection, question: Question) -> None:
        recorded = self._recorder.find(question.prediction_id)
        if recorded is not None:
            self._questions.follow(connection, question, recorded.labels)

    def _question(self, connection: Connection, prediction_id: str) -> Question:
        question = self._questions.find(connection, prediction_id)
        if question is None:
            raise NotFoundError(
                f"nothing is asked about prediction {prediction_id!r}", hint="claim first"
            )
        return question


def _check_bounds(name: str, value: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise SchemaError(
            f"{name}: {value!r} is not a number from 1 to {most:,}", hint=f"send {name} within"
        )
