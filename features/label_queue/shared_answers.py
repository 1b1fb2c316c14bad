"""Shared answers: the labels that people gave to one prediction go to all that share its question."""

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from sqlalchemy import Connection

from headwater.features.label_queue.equal_predictions import EqualPrediction
from headwater.features.label_queue.person_labels import PersonLabels
from headwater.features.label_queue.questions import Question, Questions
from headwater.features.record.encoder import RecordEncoder
from headwater.infra.store.database import Database

__all__ = ["SharedAnswers"]

_TOGETHER = 20


class SharedAnswers:
    """Labels equal predictions with the answers to their question.

    Each prediction gets a label of its own, with the person's key for that prediction. Whoever wrote an
    answer's row has marked the predictions in the same transaction; the mark is removed once the labels
    are synced. So a process killed between leaves the mark, and the labels are recorded once.

    Parameters
    ----------
    questions, database
        The rows, and where they are.
    labels, recorder
        What people said, and all records.
    """

    def __init__(
        self,
        questions: Questions,
        labels: PersonLabels,
        recorder: RecordEncoder,
        database: Database,
    ) -> None:
        self._questions = questions
        self._labels = labels
        self._recorder = recorder
        self._database = database

    def follow_labels(self, prediction_ids: Sequence[str]) -> None:
        """Let the questions about predictions follow their labels, in one transaction."""
        with self._database.transaction() as connection:
            for id_ in prediction_ids:
                question = self._questions.find(connection, id_)
                if question is not None:
                    self.follow(connection, question)

    def follow(self, connection: Connection, question: Question) -> None:
        """Let one question follow the labels of its prediction."""
        recorded = self._recorder.find(question.prediction_id)
        if recorded is not None:
            self._questions.follow(connection, question, recorded.labels)

    def record(self, most_steps: int | None = None, question: int | None = None) -> None:
        """Record the labels that equal predictions lack.

        Parameters
        ----------
        most_steps
            How many transactions at most, each of some twenty predictions; None goes on to the end.
        question
            Position of the only question to look at.
        """
        steps = 0
        while most_steps is None or steps < most_steps:
            with self._database.reading() as connection:
                waiting = self._questions.equals.due(connection, 1, question)
            if not waiting:
                return
            with self._database.transaction() as connection:
                due = self._questions.equals.due(connection, _TOGETHER, question)
                for position, members in groupby(
                    sorted(due, key=attrgetter("question")), attrgetter("question")
                ):
                    self._label(connection, position, list(members))
            steps += 1

    def _label(self, connection: Connection, question: int, members: list[EqualPrediction]) -> None:
        """Label some predictions of one question, one answer after another, in the order of the people.

        The transaction stays open meanwhile, so that no answer changes between reading and recording it.
        """
        answers = self._questions.answers.values(connection, question)
        wanting = self._labels.wanting([member.prediction_id for member in members])
        if answers and wanting:
            self._labels.record(answers, wanting)
        self._questions.equals.have_labels(connection, [member.position for member in members])
