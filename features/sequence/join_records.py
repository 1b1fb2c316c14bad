"""What joining takes, knows and adds: arrivals and deadlines, known records, rows."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from msgspec.structs import astuple

from headwater.infra.clock import to_us
from headwater.spec.data.checksum import example_checksum, label_checksum, prediction_checksum
from headwater.spec.data.records import LabelValue, Source

__all__ = [
    "Arrival",
    "Deadline",
    "HeldLabel",
    "Joined",
    "KnownLabel",
    "NewClass",
    "NewExample",
    "NewLabel",
    "NewPrediction",
    "StoredLabel",
    "example_rows",
    "label_rows",
    "prediction_rows",
]


class KnownLabel(msgspec.Struct, frozen=True, gc=False):
    """A revision of a label.

    Parameters
    ----------
    position, value, effective_at_us, source
        As it was received.
    known_at_us
        The time at which it counts as known.
    received
        Its place in the order of receipt: its position, or that of the label which it tells by another
        name.
    held
        Whether it is held back for its class.
    """

    position: int
    value: LabelValue
    effective_at_us: int
    known_at_us: int
    source: Source
    received: int
    held: bool = False


class StoredLabel(msgspec.Struct, gc=False):
    """What a stored label tells: the part of its payload that joining goes by; the rest is skipped."""

    value: LabelValue
    known_at: datetime
    source: Source = "natural"
    on_receipt: bool = False
    instead_of: int | None = None

    def received(self, position: int, effective_at_us: int, *, held: bool = False) -> KnownLabel:
        """Return the label as received at a time; it counts as known then at the latest."""
        known_us = effective_at_us if self.on_receipt else min(to_us(self.known_at), effective_at_us)
        place = position if self.instead_of is None else self.instead_of
        return KnownLabel(position, self.value, effective_at_us, known_us, self.source, place, held)


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """An entry of the inbox with its effective time; `told` is None for a prediction.

    `crc` is its payload's, which was held against the inbox's checksum; `recorded_by` the number of the
    declaration that it was recorded under, None for entries of before.
    """

    id: str
    effective_at_us: int
    told: StoredLabel | None
    payload: bytes
    crc: int
    recorded_by: int | None = None


class Deadline(msgspec.Struct, frozen=True, order=True, gc=False):
    """The due time of a prediction; deadlines fall in the order of times, then of positions."""

    due_us: int
    position: int
    id: str


class NewPrediction(msgspec.Struct, frozen=True, gc=False):
    """A row to insert; `due_us` is None unless its rule names when its truth is due."""

    position: int
    id: str
    effective_at_us: int
    payload: bytes
    crc: int
    recorded_by: int | None = None
    due_us: int | None = None


class NewLabel(msgspec.Struct, frozen=True, gc=False):
    """A row to insert; it names its prediction by position, or by id where that has not come."""

    position: int
    prediction_position: int | None
    prediction_id: str | None
    revision: int
    effective_at_us: int
    late: bool
    payload: bytes
    held_class: str | None
    crc: int


class NewClass(msgspec.Struct, frozen=True, gc=False):
    """A row to insert: a class that is not declared, and its first label."""

    digest: str
    name: str
    position: int
    appeared_at_us: int


class NewExample(msgspec.Struct, frozen=True, gc=False):
    """A row to insert."""

    offset: int
    prediction_position: int
    label_position: int
    emitted_at_us: int
    supersedes: int | None


class HeldLabel(msgspec.Struct, frozen=True, gc=False):
    """A label that is held back: its position, as it came, and whether it was late."""

    position: int
    arrival: Arrival
    told: StoredLabel
    late: bool


class Joined(NamedTuple):
    """The rows that a batch of entries and deadlines adds."""

    predictions: list[NewPrediction]
    labels: list[NewLabel]
    examples: list[NewExample]
    classes: list[NewClass]

    @classmethod
    def nothing(cls) -> "Joined":
        """Return no rows."""
        return cls([], [], [], [])


_Row = tuple[object, ...]


def prediction_rows(pipeline_id: int, new: Sequence[NewPrediction]) -> list[_Row]:
    """Return predictions as rows of their table, with checksums."""
    return [
        (
            pipeline_id,
            position,
            id_,
            us,
            payload,
            prediction_checksum(position, id_, us, crc, by, due_us),
            by,
            due_us,
        )
        for position, id_, us, payload, crc, by, due_us in map(astuple, new)
    ]


def label_rows(pipeline_id: int, new: Sequence[NewLabel]) -> list[_Row]:
    """Return labels as rows of their table; a checksum does not cover the class of one that is held."""
    rows: list[_Row] = []
    for position, of, id_, revision, us, late, payload, held, crc in map(astuple, new):
        checksum = label_checksum(position, id_ if of is None else of, revision, us, late, crc)
        rows.append((pipeline_id, position, of, id_, revision, us, late, payload, held, checksum))
    return rows


def example_rows(pipeline_id: int, new: Sequence[NewExample]) -> list[_Row]:
    """Return examples as rows of their table, with checksums."""
    return [(pipeline_id, *row, example_checksum(*row)) for row in map(astuple, new)]
