"""The records that a sequencer knows: those it read or wrote lately, and those it loads for a batch."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, func, select

from headwater.features.sequence.join_records import (
    Arrival,
    Deadline,
    KnownLabel,
    StoredLabel,
)
from headwater.features.sequence.joining_rule import KnownPrediction
from headwater.features.sequence.recorded_rules import RecordedRules
from headwater.infra.store.schema import tables

__all__ = ["STORED_LABEL", "KnownRecords"]

_CHUNK = 1_000
_REMEMBERED = 20_000


STORED_LABEL = msgspec.json.Decoder(StoredLabel)
"""Reads the part of a stored label that joining goes by."""


class KnownRecords:
    """The predictions that a sequencer knows, with their labels and examples.

    While its lease holds, nobody else writes: what was read or written lately is still so. What a
    failed transaction left here may not be stored: the sequencer clears it.

    Parameters
    ----------
    pipeline_id
        The pipeline's number in the database.
    rules
        The label rules of the declarations under which its predictions were recorded.

    Attributes
    ----------
    by_id
        The predictions by id; the joiner adds and changes them.
    """

    def __init__(self, pipeline_id: int, rules: RecordedRules) -> None:
        self._rules = rules
        self.by_id: dict[str, KnownPrediction] = {}
        self._pipeline_id = pipeline_id
        self._only_inbox = False

    def begin(self, connection: Connection) -> None:
        """Look how many inboxes the pipeline has; called under the lease."""
        inboxes = select(func.count()).where(tables.inbox_position.c.pipeline_id == self._pipeline_id)
        self._only_inbox = connection.execute(inboxes).scalar_one() == 1

    def load(
        self,
        connection: Connection,
        arrivals: Sequence[Arrival],
        deadlines: Sequence[Deadline],
        parked: int,
    ) -> None:
        """Load what the stores hold of the records of a batch, and is not known.

        Parameters
        ----------
        connection
            In the batch's transaction.
        arrivals, deadlines
            The batch.
        parked
            How many labels are parked.
        """
        ids = self._unknown(arrivals, deadlines, parked)
        known: dict[str, KnownPrediction] = {}
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            self._load_predictions(connection, chunk, known)
            for id_, label in self._labels(connection, tables.label.c.prediction_id, chunk):
                known.setdefault(id_, KnownPrediction()).labels += (label,)
        recorded = {
            prediction.position: prediction
            for prediction in known.values()
            if prediction.position is not None
        }
        positions = sorted(recorded)
        for start in range(0, len(positions), _CHUNK):
            chunk_of = positions[start : start + _CHUNK]
            after = self._labels(connection, tables.label.c.prediction_position, chunk_of)
            for position, label in after:  # after their predictions, and so after any that were parked
                recorded[position].labels += (label,)
            self._load_examples(connection, chunk_of, recorded)
        self.by_id.update(known)

    def forget(self) -> None:
        """Forget the oldest, down to a bound."""
        for id_ in list(islice(self.by_id, max(0, len(self.by_id) - _REMEMBERED))):
            del self.by_id[id_]

    def _unknown(
        self, arrivals: Sequence[Arrival], deadlines: Sequence[Deadline], parked: int
    ) -> list[str]:
        """Return the ids of which the stores may hold records that are not known.

        An inbox holds a prediction once: with one inbox and no label parked, an id that comes with a
        prediction is new to the stores.
        """
        recalled = self._only_inbox and parked == 0
        new = {arrival.id for arrival in arrivals if arrival.told is None} if recalled else ()
        known = self.by_id  # may be long: look ids up, build no set of it
        ids = {arrival.id for arrival in arrivals if arrival.id not in known}
        ids.update(deadline.id for deadline in deadlines if deadline.id not in known)
        return sorted(ids.difference(new))

    def _load_predictions(
        self, connection: Connection, ids: Sequence[str], known: dict[str, KnownPrediction]
    ) -> None:
        table = tables.prediction.c
        columns = (table.id, table.position, table.effective_at_us, table.recorded_by, table.due_us)
        rows = connection.execute(
            select(*columns).where(table.pipeline_id == self._pipeline_id, table.id.in_(ids))
        ).all()
        rules = self._rules.of(connection, {row.recorded_by for row in rows})
        for id_, position, effective_us, recorded_by, due_us in rows:
            rule = rules[recorded_by]
            due = effective_us + rule.wait_us if due_us is None else due_us
            known[id_] = KnownPrediction(position, effective_us, due, rule)

    def _labels(
        self, connection: Connection, of: ColumnElement[Any], keys: Sequence[Any]
    ) -> Iterator[tuple[Any, KnownLabel]]:
        """Yield the labels of some predictions, by revision, each with its prediction's key."""
        table = tables.label.c
        query = select(of, table.position, table.payload, table.effective_at_us, table.held_class).where(
            table.pipeline_id == self._pipeline_id, of.in_(keys)
        )
        rows = connection.execute(query.order_by(of, table.revision)).all()
        for key, position, payload, us, held in rows:
            yield key, STORED_LABEL.decode(payload).received(position, us, held=held is not None)

    def _load_examples(
        self, connection: Connection, positions: Sequence[int], known: dict[int, KnownPrediction]
    ) -> None:
        table = tables.example.c
        for position, offset, label_position in connection.execute(
            select(table.prediction_position, table.offset, table.label_position)
            .where(table.pipeline_id == self._pipeline_id, table.prediction_position.in_(positions))
            .order_by(table.offset)
        ).all():
            prediction = known[position]
            prediction.example = offset
            prediction.learned = next(
                label.value for label in prediction.labels if label.position == label_position
            )
