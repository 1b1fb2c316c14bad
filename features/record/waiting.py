"""Whether a record waits that two label rules could join differently."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection, select

from headwater.features.record.inbox import Inbox
from headwater.infra.store.schema import tables
from headwater.spec.data.label import LabelRule
from headwater.spec.duration import duration

__all__ = ["is_waiting"]

_MICROSECOND = timedelta(microseconds=1)


def is_waiting(
    connection: Connection, pipeline_id: int, inbox: Inbox, rules: Sequence[LabelRule], now_us: int
) -> bool:
    """Return whether a record is not sequenced yet, or its wait has not passed or was not handled.

    Parameters
    ----------
    connection, pipeline_id, inbox
        Where the pipeline's records are.
    rules
        The stored rule, then the one that is to follow it.
    now_us
        The clock's present.
    """
    read = tables.inbox_position.c
    read_to: int = connection.execute(
        select(read.position).where(read.pipeline_id == pipeline_id, read.inbox == inbox.identity.inbox)
    ).scalar_one()
    return inbox.count_after(read_to) > 0 or _is_open(connection, pipeline_id, rules, now_us)


def _is_open(connection: Connection, pipeline_id: int, rules: Sequence[LabelRule], now_us: int) -> bool:
    """Return whether a wait has not passed yet, or a passed deadline was not handled yet."""
    longest_us = max(duration(rule.wait) for rule in rules) // _MICROSECOND
    place = tables.sequencer.c
    horizon_us, next_deadline = connection.execute(
        select(place.horizon_us, place.next_deadline).where(place.pipeline_id == pipeline_id)
    ).one()
    since_us = max(horizon_us, now_us) - longest_us
    prediction, label = tables.prediction.c, tables.label.c
    of_mine = select(prediction.position).where(prediction.pipeline_id == pipeline_id)
    waits = of_mine.where(prediction.effective_at_us >= since_us)
    parked = select(label.position).where(
        label.pipeline_id == pipeline_id,
        label.prediction_id.is_not(None),
        label.effective_at_us >= since_us,
    )
    undecided = of_mine.where(prediction.position >= next_deadline)
    watched = rules[0].maturity == "window" or rules[0].timeout is not None
    queries = (waits, parked, undecided) if watched else (waits, parked)
    return any(connection.execute(query.limit(1)).first() is not None for query in queries)
