"""The names of classes that were not declared when they came, as the sequencer reads and writes them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select, update

from headwater.features.sequence.join_records import Arrival, HeldLabel, NewClass
from headwater.features.sequence.known_records import STORED_LABEL
from headwater.infra.store.database import insert_many
from headwater.infra.store.schema import tables
from headwater.spec.data.checksum import payload_crc
from headwater.spec.data.label import LabelRule, class_digest

__all__ = ["ClassNames", "Naming"]

_CHUNK = 1_000


class Naming(NamedTuple):
    """What a class is, as a person said or the rule declares; the sequencer has not gone by it yet."""

    digest: str
    becomes: str


class ClassNames:
    """The classes of one pipeline that came and were not declared, in transactions that callers open.

    Parameters
    ----------
    pipeline_id
        The pipeline's number in the database.
    rule
        Its label rule.
    """

    def __init__(self, pipeline_id: int, rule: LabelRule) -> None:
        self._pipeline_id = pipeline_id
        self._declared = frozenset(rule.known_classes)
        # Built once, since the sequencer looks again and again.
        table = tables.label_class.c
        waiting = (table.pipeline_id == pipeline_id) & table.named_from.is_(None)
        self._select_named = (
            select(table.digest, table.becomes)
            .where(waiting, table.becomes.is_not(None))
            .order_by(table.position)
        )
        declared = sorted(map(class_digest, self._declared))
        self._select_declared = (
            select(table.digest, table.name)
            .where(waiting, table.becomes.is_(None), table.digest.in_(declared))
            .order_by(table.position)
        )

    def of(self, connection: Connection, arrivals: Sequence[Arrival]) -> dict[str, str | None]:
        """Return the names of a batch's classes that came before: None for those without one."""
        if not self._declared:
            return {}
        values = {arrival.told.value for arrival in arrivals if arrival.told is not None}
        digests = sorted(
            class_digest(value)
            for value in values
            if isinstance(value, str) and value not in self._declared
        )
        names: dict[str, str | None] = {}
        table = tables.label_class.c
        for start in range(0, len(digests), _CHUNK):
            query = select(table.name, table.becomes, table.named_from).where(
                table.pipeline_id == self._pipeline_id,
                table.digest.in_(digests[start : start + _CHUNK]),
            )
            for name, becomes, named_from in connection.execute(query).all():
                names[name] = None if named_from is None else becomes
        return names

    def write(self, connection: Connection, classes: Sequence[NewClass]) -> None:
        """Insert the classes that came for the first time."""
        rows = [
            (
                self._pipeline_id,
                one.digest,
                one.name,
                one.position,
                one.appeared_at_us,
                False,
                None,
                None,
            )
            for one in classes
        ]
        insert_many(connection, tables.label_class, rows)

    def pending(self, connection: Connection) -> list[Naming]:
        """Return what the sequencer must go by: what people named, and what is declared now."""
        return [
            Naming(digest, becomes)
            for query in (self._select_named, self._select_declared)
            for digest, becomes in connection.execute(query).tuples()
        ]

    def apply(self, connection: Connection, naming: Naming, position: int) -> list[HeldLabel]:
        """Name a class from a position on, and return the labels that were held back for it."""
        table = tables.label_class
        connection.execute(
            update(table)
            .where(table.c.pipeline_id == self._pipeline_id, table.c.digest == naming.digest)
            .values(named_from=position, becomes=naming.becomes)
        )
        return list(self._held(connection, naming.digest))

    def _held(self, connection: Connection, digest: str) -> Iterator[HeldLabel]:
        label, prediction = tables.label.c, tables.prediction.c
        of_prediction = (prediction.pipeline_id == label.pipeline_id) & (
            prediction.position == label.prediction_position
        )
        query = (
            select(
                label.position,
                func.coalesce(prediction.id, label.prediction_id),
                label.effective_at_us,
                label.late,
                label.payload,
            )
            .select_from(tables.label.outerjoin(tables.prediction, of_prediction))
            .where(label.pipeline_id == self._pipeline_id, label.held_class == digest)
            .order_by(label.position)
        )
        for position, id_, effective_us, late, payload in connection.execute(query).all():
            told = STORED_LABEL.decode(payload)
            arrival = Arrival(id_, effective_us, told, payload, payload_crc(payload))
            yield HeldLabel(position, arrival, told, late)
