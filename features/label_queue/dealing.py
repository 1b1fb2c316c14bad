"""Dealing questions to people: who gets which, and whether his answer is still wanted."""

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Connection

from headwater.features.label_queue.questions import Question, Questions
from headwater.features.record.encoder import RecordEncoder
from headwater.infra.clock import from_us, to_us
from headwater.spec.errors import ConflictError
from headwater.spec.pipeline import Task
from headwater.spec.serving.queue import People, Why, random_next
from headwater.spec.serving.queue_results import ClaimedQuestion

__all__ = ["Dealing", "QuestionLease"]

_TO_WRITE = timedelta(minutes=1)
_TOGETHER = 5


class QuestionLease(NamedTuple):
    """The lease of a claim: a person's, from now until a moment, in microseconds."""

    person: str
    now_us: int
    until_us: int


class Dealing:
    """The dealing of one pipeline's questions, in transactions that the queue opens.

    Parameters
    ----------
    people, task
        How it asks, and about what.
    questions, recorder
        The rows, and the records that they are about.
    """

    def __init__(
        self, people: People, task: Task, questions: Questions, recorder: RecordEncoder
    ) -> None:
        self._people = people
        self._task = task
        self._questions = questions
        self._recorder = recorder

    def deal(
        self, connection: Connection, lease: QuestionLease, before: Collection[int], many: int
    ) -> dict[int, ClaimedQuestion]:
        """Claim questions for a person: those that he holds, then the next of the strata.

        Parameters
        ----------
        connection
            An open transaction, which is to be short.
        lease
            Whose, and until when.
        before
            Positions of the questions that this claim has dealt already.
        many
            How many at most; fewer than `many` may be dealt though more wait, and none if none waits.

        Returns
        -------
        dict
            The questions, by position.
        """
        many = min(many, _TOGETHER)

        def held(_limit: int) -> list[Question]:
            holds = self._questions.held(connection, lease.person, lease.now_us, len(before) + many)
            return [question for question in holds if question.position not in before]

        dealt = self._taken(connection, held, lease, many)
        for why, count in self._strata(connection, many - len(dealt)):

            def free(limit: int, why: Why = why) -> list[Question]:
                return self._questions.free(connection, lease.person, lease.now_us, why, limit)

            dealt |= self._taken(connection, free, lease, min(count, many - len(dealt)))
        return dealt

    def refusal(
        self, connection: Connection, question: Question, person: str, now_us: int
    ) -> ConflictError | None:
        """Return why a person may not answer; if he may, hold the question for him meanwhile."""
        if question.closed == "labelled":
            return ConflictError(
                f"the truth of {question.prediction_id!r} came from elsewhere meanwhile",
                hint="claim another",
            )
        answered_or_skipped, value = self._questions.answers.of(connection, question.position, person)
        if value is not None:
            return None
        held_until = self._questions.claims.until(connection, question.position, person)
        if held_until is None and not answered_or_skipped:
            return _not_claimed(person, question.prediction_id)
        alive = held_until is not None and held_until > now_us
        if not alive and not self._questions.has_room(connection, question, now_us):
            return ConflictError(
                f"{person} no longer holds {question.prediction_id!r}, and it went to others",
                hint="claim another, or claim for longer",
            )
        until_us = to_us(from_us(now_us) + _TO_WRITE)
        if held_until is None or held_until < until_us:
            self._questions.take(connection, question, person, until_us)
        return None

    def skip(self, connection: Connection, question: Question, person: str, now_us: int) -> None:
        """Skip a question for a person, who holds it; do nothing if he skipped it before.

        Raises
        ------
        ConflictError
            If he did not claim it, or has answered it.
        """
        answered_or_skipped, value = self._questions.answers.of(connection, question.position, person)
        if value is not None:
            raise ConflictError(
                f"{person} has answered {question.prediction_id!r} already",
                hint="send another answer instead",
            )
        if answered_or_skipped:
            return
        if self._questions.claims.until(connection, question.position, person) is None:
            raise _not_claimed(person, question.prediction_id)
        self._questions.skip(connection, question, person, now_us)

    def _strata(self, connection: Connection, many: int) -> list[tuple[Why, int]]:
        """Return the strata of the next questions; if one is short, the other fills in."""
        place = self._questions.progress.place(connection)
        random = random_next(self._people, self._task, place.dealt_random, place.dealt, many)
        return [("random", random), ("uncertain", many), ("random", many)]

    def _taken(
        self,
        connection: Connection,
        candidates: Callable[[int], list[Question]],
        lease: QuestionLease,
        many: int,
    ) -> dict[int, ClaimedQuestion]:
        """Claim candidates for a person; select them again if rows had to follow labels."""
        taken: dict[int, ClaimedQuestion] = {}
        changed = True
        while len(taken) < many and changed:
            changed = False
            for question in candidates(many):
                if question.position in taken:
                    continue
                claimed = self._take(connection, question, lease)
                changed = changed or claimed is None
                if claimed is not None and len(taken) < many:
                    taken[question.position] = claimed
        return taken

    def _take(
        self, connection: Connection, question: Question, lease: QuestionLease
    ) -> ClaimedQuestion | None:
        """Claim one question for a person; None if a label came between, or the prediction is gone."""
        recorded = self._recorder.find(question.prediction_id)
        if recorded is None or recorded.prediction is None:
            self._questions.remove(connection, question)
            return None
        if self._questions.follow(connection, question, recorded.labels):
            return None
        self._questions.take(connection, question, lease.person, lease.until_us)
        served = recorded.prediction
        return ClaimedQuestion(
            prediction_id=question.prediction_id,
            why=question.why,
            until=from_us(lease.until_us),
            features=served.features,
            entity=served.entity,
            served_at=served.served_at,
            version=served.version,
            predictions=1 + self._questions.equals.count(connection, question.position),
        )


def _not_claimed(person: str, prediction_id: str) -> ConflictError:
    return ConflictError(f"{person} has not claimed {prediction_id!r}", hint="claim it first")
