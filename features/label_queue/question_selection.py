"""The selection of questions from sequenced records, step by step, in bounded memory."""

from collections.abc import Iterable
from heapq import nlargest

import msgspec
from sqlalchemy import Connection, select

from headwater.features.label_queue.questions import Question, Questions
from headwater.features.record.encoder import RecordEncoder
from headwater.infra.store import tables
from headwater.infra.store.database import insert_many
from headwater.spec.data.records import Output
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.queue import People, ask, places

__all__ = ["STEP_RECORDS", "QuestionSelection"]

STEP_RECORDS = 5_000
"""How many records one step looks at."""


class _Served(msgspec.Struct, gc=False):
    """The fields of a stored prediction that decide whether people are asked about it."""

    output: Output
    version: str = ""
    role: str = "champion"


class _Labelled(msgspec.Struct, gc=False):
    source: str = "natural"


_SERVED = msgspec.json.Decoder(_Served)
_LABELLED = msgspec.json.Decoder(_Labelled)


class QuestionSelection:
    """The selection of questions, which looks at each sequenced record once.

    A prediction that was answered to somebody by a version, and has no label, becomes a question; a
    label lets the question about its prediction follow. What a shadow predicted, and what was imported,
    becomes none.

    Parameters
    ----------
    pipeline, pipeline_id
        Whose records.
    questions, recorder
        What is asked already, and the labels.
    step_records
        How many records one step looks at.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        pipeline_id: int,
        questions: Questions,
        recorder: RecordEncoder,
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
        self._recorder = recorder

    def step(self, connection: Connection) -> int:
        """Look at the next records in an open transaction, and return their number."""
        start = self._questions.place(connection).next_position
        sequencer = tables.sequencer.c
        mine = sequencer.pipeline_id == self._pipeline_id
        end = connection.execute(select(sequencer.next_position).where(mine)).scalar_one()
        stop = min(start + self._step_records, end)
        if start >= stop:
            return 0
        for question in self._touched(connection, start, stop):
            recorded = self._recorder.find(question.prediction_id)
            if recorded is not None:
                self._questions.follow(connection, question, recorded.labels)
        self._ask(connection, start, stop)
        self._questions.move(connection, next_position=stop)
        return int(stop - start)

    def _ask(self, connection: Connection, start: int, stop: int) -> None:
        labelled = self._labelled(connection, start, stop)
        table = tables.prediction.c
        rows = connection.execute(
            select(table.position, table.id, table.payload).where(
                table.pipeline_id == self._pipeline_id, table.position >= start, table.position < stop
            )
        ).all()
        questions = [
            question
            for position, id_, payload in rows
            if position not in labelled
            and (question := self._question(position, id_, _SERVED.decode(payload))) is not None
        ]
        if questions:
            urgent = self._most_urgent(questions)
            rows_of = [(self._pipeline_id, *question) for question in urgent]
            insert_many(connection, tables.question, rows_of)
            self._questions.trim(connection, self._places)

    def _question(self, position: int, id_: str, served: _Served) -> Question | None:
        if served.role == "shadow" or not served.version:
            return None
        choice = ask(self._people, self._task, self._key, id_, served.output)
        return Question(
            position, id_, choice.why, choice.priority, choice.people, choice.people, 0, False, None
        )

    def _most_urgent(self, questions: Iterable[Question]) -> list[Question]:
        urgent: list[Question] = []
        for why, most in self._places.items():
            stratum = (question for question in questions if question.why == why)
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
            )
        )
        return {
            position
            for query in (after, before)
            for position, payload in connection.execute(query).all()
            if _LABELLED.decode(payload).source != "timeout"
        }

    def _touched(self, connection: Connection, start: int, stop: int) -> list[Question]:
        """Return the questions whose predictions have a label in a range."""
        question, label = tables.question.c, tables.label.c
        query = (
            select(*(question[name] for name in Question._fields))
            .join(
                tables.label,
                (label.pipeline_id == question.pipeline_id)
                & (label.prediction_position == question.position),
            )
            .where(
                label.pipeline_id == self._pipeline_id, label.position >= start, label.position < stop
            )
            .distinct()
        )
        return [Question._make(row) for row in connection.execute(query).all()]
