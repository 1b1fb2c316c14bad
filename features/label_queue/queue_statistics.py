"""Statistics of the label queue."""

import msgspec
from sqlalchemy import Connection, func, select

from headwater.features.label_queue.agreement import Agreement, Pair, agreement
from headwater.infra.store import tables
from headwater.spec.data.records import LabelValue
from headwater.spec.serving.queue import People

__all__ = ["QueueStatistics", "counts"]

_VALUE: msgspec.json.Decoder[LabelValue] = msgspec.json.Decoder(LabelValue)


class QueueStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a pipeline's label queue, in counts.

    Parameters
    ----------
    open_random, open_uncertain
        Questions that wait for an answer, by why they are asked.
    claimed
        Claims whose lease has not ended.
    answered
        Questions that have the answers they want.
    answers, skips
        What people did, over all questions.
    people
        How many of them.
    given_up
        Questions that three people skipped, and nobody answered.
    labelled
        Questions whose truth came from elsewhere before they were answered.
    behind
        Sequenced records at which the queue has not looked yet.
    agreement
        How far people agree.
    """

    open_random: int
    open_uncertain: int
    claimed: int
    answered: int
    answers: int
    skips: int
    people: int
    given_up: int
    labelled: int
    behind: int
    agreement: Agreement


def counts(
    connection: Connection, pipeline_id: int, people: People, task: str, now_us: int
) -> QueueStatistics:
    """Count in the database alone; the result is small, however long the queue is."""
    question, claim, answer = tables.question.c, tables.claim.c, tables.answer.c
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
        behind=connection.execute(end).scalar_one() - next_position,
        agreement=agreement(people, task, _pairs(connection, pipeline_id)),
    )


def _place(connection: Connection, pipeline_id: int) -> tuple[int, int]:
    table = tables.queue.c
    query = select(table.next_position, table.labelled).where(table.pipeline_id == pipeline_id)
    row = connection.execute(query).one_or_none()
    return (0, 0) if row is None else (row.next_position, row.labelled)


def _pairs(connection: Connection, pipeline_id: int) -> list[Pair]:
    """Count the combinations of first and second answer, over questions that have both."""
    first, second = tables.answer.alias("first"), tables.answer.alias("second")
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
