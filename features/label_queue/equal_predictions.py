"""The rows of equal predictions: those whose question is asked about another prediction."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, delete, func, select, update

from headwater.infra.store.database import insert_many
from headwater.infra.store.schema import queue_tables

__all__ = ["EqualPrediction", "EqualPredictions"]


class EqualPrediction(NamedTuple):
    """A prediction that shares a question: the columns of its row, without the pipeline's."""

    position: int
    prediction_id: str
    question: int
    due: bool


_COLUMNS = [queue_tables.equal_prediction.c[name] for name in EqualPrediction._fields]


class EqualPredictions:
    """The predictions that share one pipeline's questions, in transactions that callers open.

    A question is about one prediction, at whose position its rows are. Others with the same features and
    entity keys have a row here, and get the labels that people give to that one. `due` says that a
    prediction lacks some of them.

    Parameters
    ----------
    pipeline_id
        Whose.
    """

    def __init__(self, pipeline_id: int) -> None:
        self._pipeline_id = pipeline_id

    def add(self, connection: Connection, rows: Sequence[EqualPrediction]) -> None:
        """Add predictions to questions."""
        insert_many(
            connection, queue_tables.equal_prediction, [(self._pipeline_id, *row) for row in rows]
        )

    def count(self, connection: Connection, question: int) -> int:
        """Count the predictions that share a question, beside its own."""
        query = select(func.count()).where(*self._of(question))
        return connection.execute(query).scalar_one()

    def lack_labels(self, connection: Connection, question: int) -> None:
        """Store that the predictions of a question lack labels that people gave."""
        connection.execute(
            update(queue_tables.equal_prediction).where(*self._of(question)).values(due=True)
        )

    def due(
        self, connection: Connection, most: int, question: int | None = None
    ) -> list[EqualPrediction]:
        """Return predictions that lack labels, of one question or of any, the first ones first."""
        table = queue_tables.equal_prediction.c
        query = select(*_COLUMNS).where(table.pipeline_id == self._pipeline_id, table.due)
        if question is not None:
            query = query.where(table.question == question)
        rows = connection.execute(query.order_by(table.position).limit(most)).all()
        return [EqualPrediction._make(row) for row in rows]

    def have_labels(self, connection: Connection, positions: Collection[int]) -> None:
        """Store that predictions have all labels that people gave."""
        connection.execute(
            update(queue_tables.equal_prediction).where(*self._at(positions)).values(due=False)
        )

    def hand_over(self, connection: Connection, question: int) -> EqualPrediction | None:
        """Take the first prediction out, and let the others share its question; None if none is left."""
        table = queue_tables.equal_prediction
        query = select(*_COLUMNS).where(*self._of(question)).order_by(table.c.position).limit(1)
        row = connection.execute(query).one_or_none()
        if row is None:
            return None
        heir = EqualPrediction._make(row)
        self.remove(connection, [heir.position])
        connection.execute(update(table).where(*self._of(question)).values(question=heir.position))
        return heir

    def remove(self, connection: Connection, positions: Collection[int]) -> None:
        """Take predictions out: their truth came from elsewhere."""
        connection.execute(delete(queue_tables.equal_prediction).where(*self._at(positions)))

    def remove_of(self, connection: Connection, questions: Select[tuple[int]]) -> None:
        """Take the predictions of questions out: they are asked no more."""
        table = queue_tables.equal_prediction
        of_questions = table.c.question.in_(questions)
        connection.execute(delete(table).where(table.c.pipeline_id == self._pipeline_id, of_questions))

    def _of(self, question: int) -> tuple[ColumnElement[bool], ...]:
        table = queue_tables.equal_prediction.c
        return table.pipeline_id == self._pipeline_id, table.question == question

    def _at(self, positions: Collection[int]) -> tuple[ColumnElement[bool], ...]:
        table = queue_tables.equal_prediction.c
        return table.pipeline_id == self._pipeline_id, table.position.in_(positions)
