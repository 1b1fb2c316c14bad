"""Statistics of the label queue."""

import msgspec
from sqlalchemy import Connection, func, select

from headwater.features.label_queue.agreement import Pair, agreement
from headwater.infra.store.schema import queue_tables, tables
from headwater.spec.data.records import LabelValue
from headwater.spec.serving.queue import People
from headwater.spec.serving.queue_results import QueueStatistics

__all__ = ["counts"]

_VALUE: msgspec.json.Decoder[LabelValue] = msgspec.json.Decoder(LabelValue)


def counts(
    connection: Connection, pipeline_id: int, people: People, task: str, now_us: int
) -> QueueStatistics:
    """Count in the database alone; the result is small, however long the queue is."""
    question, claim, answer = queue_tables.question.c, queue_tables.claim.c, queue_tables.answer.c
    of_questions = (
        select(question.closed, question.why, func.count())
        .where(question.pipeline_id == pipeline_id)
        .group_by(question.closed, question.why)
    )
    states = {(closed, why): int(count) for closed, why, count in connection.execute(of_questions).all()}
    of_answers = select(
        func.count(answer.value), func.count(), func.count(answer.person.distinct())
    ).where(answer.pipeline_id == pipeline_id)
    answers, rows, persons = connection.execute(of_answers).one()
    equal = select(func.count()).where(queue_tables.equal_prediction.c.pipeline_id == pipeline_id)
    living = select(func.count()).where(claim.pipeline_id == pipeline_id, claim.until_us > now_us)
    next_position, labelled = _place(connection, pipeline_id)
    end = select(tables.sequencer.c.next_position).where(tables.sequencer.c.pipeline_id == pipeline_id)
    return QueueStatistics(
        open_random=states.get((None, "random"), 0),
        open_uncertain=states.get((None, "uncertain"), 0),
        claimed=connection.execute(living).scalar_one(),
        answered=sum(count for (closed, _), count in states.items() if closed == "answered"),
        answers=answers,
        skips=rows - answers,
        people=persons,
        given_up=sum(count for (closed, _), count in states.items() if closed == "skipped"),
        labelled=labelled,
        equal=connection.execute(equal).scalar_one(),
        behind=connection.execute(end).scalar_one() - next_position,
        agreement=agreement(people, task, _pairs(connection, pipeline_id)),
    )


def _place(connection: Connection, pipeline_id: int) -> tuple[int, int]:
    table = queue_tables.queue.c
    query = select(table.next_position, table.labelled).where(table.pipeline_id == pipeline_id)
    row = connection.execute(query).one_or_none()
    return (0, 0) if row is None else (row.next_position, row.labelled)


def _pairs(connection: Connection, pipeline_id: int) -> list[Pair]:
    """Count the combinations of first and second answer, over questions that have both."""
    first, second = queue_tables.answer.alias("first"), queue_tables.answer.alias("second")
    same = (first.c.pipeline_id == second.c.pipeline_id) & (first.c.position == second.c.position)
    query = (
        select(first.c.value, second.c.value, func.count())
        .join(second, same)
        .where(first.c.pipeline_id == pipeline_id, first.c.turn == 0, second.c.turn == 1)
        .group_by(first.c.value, second.c.value)
    )
    return [
        (_VALUE.decode(one), _VALUE.decode(other), int(count))
        for one, other, count in connection.execute(query).all()
    ]
