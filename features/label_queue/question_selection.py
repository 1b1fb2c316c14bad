"""The selection of questions from sequenced records, step by step, in bounded memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, func, select

from headwater.features.label_queue.equal_predictions import EqualPrediction
from headwater.features.label_queue.questions import Question, Questions
from headwater.features.label_queue.seen_classes import SeenClasses
from headwater.features.label_queue.shared_answers import SharedAnswers
from headwater.infra.store.database import Database
from headwater.infra.store.schema import queue_tables, tables
from headwater.spec.data.records import LabelValue, Output
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.queue import People, ask, places, question_key

__all__ = ["STEP_RECORDS", "NextRecords", "QuestionSelection", "QueueFilling"]

_FOLLOWED_TOGETHER = 5

STEP_RECORDS = 500
"""How many records one step looks at: few, since their questions are written in one transaction."""


class _Served(msgspec.Struct, gc=False):
    """The fields of a stored prediction that decide whether people are asked about it."""

    features: dict[str, object]
    output: Output
    version: str = ""
    role: str = "champion"
    entity: dict[str, str] = {}


class _Labelled(msgspec.Struct, gc=False):
    source: str = "natural"
    by: str = ""


class _StoredValue(msgspec.Struct, gc=False):
    value: LabelValue


class _Candidate(NamedTuple):
    """A question that may be asked, and when its prediction came."""

    question: Question
    received_at_us: int


class _BearingQuestion(NamedTuple):
    """A stored question: its position, whether it is open, its answers, and the time of the newest."""

    position: int
    is_open: bool
    given: int
    answered_at_us: int


@dataclass(frozen=True)
class NextRecords:
    """What the next records come to; a short transaction writes it.

    Parameters
    ----------
    start, stop
        Their positions.
    touched
        Predictions that have a question, and a label among these records.
    overtaken
        Positions of equal predictions whose truth came from elsewhere.
    candidates
        The questions that may be asked, in the order of their predictions.
    classes
        Classes of labels that are new.
    """

    start: int
    stop: int
    touched: list[str]
    overtaken: list[int]
    candidates: list[_Candidate]
    classes: list[str]


_SERVED = msgspec.json.Decoder(_Served)
_LABELLED = msgspec.json.Decoder(_Labelled)
_STORED_VALUE = msgspec.json.Decoder(_StoredValue)


class QuestionSelection:
    """The selection of questions, which looks at each sequenced record once.

    A prediction that was answered to somebody by a version, and has no label, becomes a question, or
    joins an equal one; a label lets the question about its prediction follow. What a shadow predicted,
    and what was imported, becomes none.

    Sequenced records never change, so they are read and judged without a lock; what comes of them is
    written afterwards, unless another process was quicker.

    Parameters
    ----------
    pipeline, pipeline_id
        Whose records.
    questions, classes
        What is asked already, and the classes that labels had.
    step_records
        How many records one step looks at.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        pipeline_id: int,
        questions: Questions,
        classes: SeenClasses,
        *,
        step_records: int = STEP_RECORDS,
    ) -> None:
        self._step_records = step_records
        self._people = pipeline.people or People()
        self._task = pipeline.task
        self._key = f"{pipeline.name} {pipeline.seed}"
        self._places = places(self._people, pipeline.task)
        self._pipeline_id = pipeline_id
        self._questions = questions
        self._classes = classes

    def read(self, connection: Connection) -> NextRecords | None:
        """Read the next records, and judge them; None if there are none."""
        start = self._questions.progress.looked_to(connection)
        stop = min(start + self._step_records, self._questions.progress.end(connection))
        if start >= stop:
            return None
        return NextRecords(
            start,
            stop,
            self._touched(connection, start, stop),
            self._overtaken(connection, start, stop),
            list(self._candidates(connection, start, stop)),
            self._new_classes(connection, start, stop),
        )

    def write(self, connection: Connection, records: NextRecords) -> bool:
        """Write what records come to; return False, and write nothing, if another process did."""
        if self._questions.progress.place(connection).next_position != records.start:
            return False
        self._questions.equals.remove(connection, records.overtaken)
        self._ask(connection, records.candidates)
        self._classes.add(connection, records.classes)
        self._questions.progress.move(connection, next_position=records.stop)
        return True

    def _ask(self, connection: Connection, candidates: Sequence[_Candidate]) -> None:
        """Ask the most urgent of the questions; those that are asked already are joined."""
        asked = self._asked(connection, {one.question.shown for one in candidates})
        new: dict[str, Question] = {}
        equal: list[tuple[Question, _BearingQuestion | None]] = []
        for question, received_at_us in candidates:
            same = _joined(asked.get(question.shown, ()), received_at_us)
            if same is None and question.shown not in new:
                new[question.shown] = question
            else:
                equal.append((question, same))
        urgent = self._most_urgent(new.values())
        self._questions.add(connection, urgent)
        self._questions.equals.add(connection, _members(equal, urgent))
        if urgent:
            self._questions.trim(connection, self._places)

    def _asked(self, connection: Connection, shown: set[str]) -> dict[str, list[_BearingQuestion]]:
        """Return the questions that show the same, the newest of each first."""
        question, answer = queue_tables.question.c, queue_tables.answer.c
        same = (answer.pipeline_id == question.pipeline_id) & (answer.position == question.position)
        columns = (question.shown, question.position, question.closed, question.given)
        query = (
            select(*columns, func.coalesce(func.max(answer.at_us), 0))
            .select_from(queue_tables.question.outerjoin(queue_tables.answer, same))
            .where(question.pipeline_id == self._pipeline_id, question.shown.in_(shown))
            .group_by(*columns)
            .order_by(question.position.desc())
        )
        found: dict[str, list[_BearingQuestion]] = {}
        for key, position, closed, given, at_us in connection.execute(query).all():
            if closed != "labelled":
                found.setdefault(key, []).append(
                    _BearingQuestion(position, closed is None, given, at_us)
                )
        return found

    def _candidates(self, connection: Connection, start: int, stop: int) -> Iterator[_Candidate]:
        labelled = self._labelled(connection, start, stop)
        table = tables.prediction.c
        query = select(table.position, table.id, table.effective_at_us, table.payload).where(
            table.pipeline_id == self._pipeline_id, table.position >= start, table.position < stop
        )
        for position, id_, received_at_us, payload in connection.execute(query).all():
            if position in labelled:
                continue
            question = self._question(position, id_, _SERVED.decode(payload))
            if question is not None:
                yield _Candidate(question, received_at_us)

    def _question(self, position: int, id_: str, served: _Served) -> Question | None:
        if served.role == "shadow" or not served.version:
            return None
        shown = question_key(served.features, served.entity)
        choice = ask(self._people, self._task, self._key, shown, served.output)
        people = choice.people
        return Question(
            position, id_, choice.why, choice.priority, people, people, 0, False, None, shown
        )

    def _most_urgent(self, questions: Iterable[Question]) -> list[Question]:
        waiting, urgent = list(questions), list[Question]()
        for why, most in self._places.items():
            stratum = (question for question in waiting if question.why == why)
            urgent += nlargest(most, stratum, key=lambda question: question.priority)
        return urgent

    def _labelled(self, connection: Connection, start: int, stop: int) -> set[int]:
        """Return the positions of a range whose predictions have a label, early or late."""
        prediction, label = tables.prediction.c, tables.label.c
        after = select(label.prediction_position, label.payload).where(
            label.pipeline_id == self._pipeline_id,
            label.prediction_position >= start,
            label.prediction_position < stop,
        )
        before = (
            select(prediction.position, label.payload)
            .join(
                tables.label,
                (label.pipeline_id == prediction.pipeline_id) & (label.prediction_id == prediction.id),
            )
            .where(
                prediction.pipeline_id == self._pipeline_id,
                prediction.position >= start,
                prediction.position < stop,
                label.revision >= 0,  # all are, but without it SQLite reads every label of the pipeline
            )
        )
        return {
            position
            for query in (after, before)
            for position, payload in connection.execute(query).all()
            if _LABELLED.decode(payload).source != "timeout"
        }

    def _touched(self, connection: Connection, start: int, stop: int) -> list[str]:
        """Return the predictions that have a question, and a label in a range."""
        question, label = queue_tables.question.c, tables.label.c
        of_question = (label.pipeline_id == question.pipeline_id) & (
            label.prediction_position == question.position
        )
        query = (
            select(question.prediction_id)
            .join(tables.label, of_question)
            .where(*self._labels(start, stop))
            .distinct()
        )
        return list(connection.execute(query).scalars())

    def _overtaken(self, connection: Connection, start: int, stop: int) -> list[int]:
        """Return the equal predictions whose truth came from elsewhere in a range."""
        equal, label = queue_tables.equal_prediction.c, tables.label.c
        of_prediction = (label.pipeline_id == equal.pipeline_id) & (
            label.prediction_position == equal.position
        )
        query = select(equal.position, label.payload).join(tables.label, of_prediction)
        rows = connection.execute(query.where(*self._labels(start, stop))).all()
        return [
            position
            for position, payload in rows
            if (told := _LABELLED.decode(payload)).source == "natural"
            or (told.source == "human" and not told.by)
        ]

    def _new_classes(self, connection: Connection, start: int, stop: int) -> list[str]:
        """Return the classes of the labels in a range that labels before had not."""
        if self._task != "multiclass":
            return []
        query = select(tables.label.c.payload).where(*self._labels(start, stop))
        values = {_STORED_VALUE.decode(payload).value for payload in connection.execute(query).scalars()}
        return self._classes.new(connection, {str(value) for value in values})

    def _labels(self, start: int, stop: int) -> tuple[ColumnElement[bool], ...]:
        label = tables.label.c
        mine = label.pipeline_id == self._pipeline_id
        return mine, label.position >= start, label.position < stop


class QueueFilling:
    """The filling of a queue, each step a look without a lock and a short transaction.

    Parameters
    ----------
    selection, shared, database
        What is asked, who gets answers, and where the rows are.
    """

    def __init__(self, selection: QuestionSelection, shared: SharedAnswers, database: Database) -> None:
        self._selection = selection
        self._shared = shared
        self._database = database

    def fill(self, most_steps: int | None) -> int:
        """Take steps to the end, or so many at most; return how many records they looked at."""
        total, steps = 0, 0
        while most_steps is None or steps < most_steps:
            with self._database.reading() as connection:
                records = self._selection.read(connection)
            if records is None:
                break
            steps += 1
            for start in range(0, len(records.touched), _FOLLOWED_TOGETHER):
                self._shared.follow_labels(records.touched[start : start + _FOLLOWED_TOGETHER])
            with self._database.transaction() as connection:
                if self._selection.write(connection, records):
                    total += records.stop - records.start
        self._shared.record(most_steps)
        return total


def _joined(asked: Iterable[_BearingQuestion], received_at_us: int) -> _BearingQuestion | None:
    """Return the question that a prediction joins: the open one, or one answered since it came."""
    for one in asked:
        if one.is_open or one.answered_at_us >= received_at_us:
            return one
    return None


def _members(
    equal: Iterable[tuple[Question, _BearingQuestion | None]], urgent: Iterable[Question]
) -> list[EqualPrediction]:
    """Return the rows of the predictions that join a question, stored before or now."""
    new: Mapping[str, int] = {question.shown: question.position for question in urgent}
    return [
        EqualPrediction(
            one.position,
            one.prediction_id,
            new[one.shown] if same is None else same.position,
            same is not None and same.given > 0,
        )
        for one, same in equal
        if same is not None or one.shown in new
    ]
