"""What joining takes, knows and adds: arrivals and deadlines, known records, rows."""

from datetime import datetime
from typing import NamedTuple

import msgspec

from headwater.infra.clock import to_us
from headwater.spec.data.checksum import example_checksum, label_checksum, prediction_checksum
from headwater.spec.data.records import LabelValue, Source

__all__ = [
    "Arrival",
    "Deadline",
    "HeldLabel",
    "Joined",
    "KnownLabel",
    "KnownPrediction",
    "NewClass",
    "NewExample",
    "NewLabel",
    "NewPrediction",
    "StoredLabel",
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
    """An entry of the inbox with its effective time; `told` is None for a prediction."""

    id: str
    effective_at_us: int
    told: StoredLabel | None
    payload: bytes


class Deadline(msgspec.Struct, frozen=True, gc=False):
    """A prediction whose wait ends."""

    due_us: int
    position: int
    id: str


class NewPrediction(msgspec.Struct, frozen=True, gc=False):
    """A row to insert."""

    position: int
    id: str
    effective_at_us: int
    payload: bytes

    @property
    def checksum(self) -> int:
        """The row's checksum."""
        return prediction_checksum(self.position, self.id, self.effective_at_us, self.payload)


class NewLabel(msgspec.Struct, frozen=True, gc=False):
    """A row to insert; it names its prediction by position, or by id where that has not come."""

    position: int
    prediction_position: int | None
    prediction_id: str | None
    revision: int
    effective_at_us: int
    late: bool
    payload: bytes
    held_class: str | None = None

    @property
    def checksum(self) -> int:
        """The row's checksum, without the class for which it is held."""
        of = self.prediction_id if self.prediction_position is None else self.prediction_position
        revision, us = self.revision, self.effective_at_us
        return label_checksum(self.position, of, revision, us, self.late, self.payload)


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

    @property
    def checksum(self) -> int:
        """The row's checksum."""
        places = self.offset, self.prediction_position, self.label_position
        return example_checksum(*places, self.emitted_at_us, self.supersedes)


class HeldLabel(msgspec.Struct, frozen=True, gc=False):
    """A label that is held back: its position, as it came, and whether it was late."""

    position: int
    arrival: Arrival
    told: StoredLabel
    late: bool


class KnownPrediction(msgspec.Struct, gc=False):
    """The known state of one prediction id: its labels and its newest example.

    Parameters
    ----------
    position
        The prediction's, or None while it has not come.
    effective_at_us
        The prediction's effective time.
    labels
        Its labels, by revision.
    example
        Offset of its newest example, or None.
    learned
        The value that the newest example carries.
    """

    position: int | None = None
    effective_at_us: int = 0
    labels: tuple[KnownLabel, ...] = ()
    example: int | None = None
    learned: LabelValue | None = None


class Joined(NamedTuple):
    """The rows that a batch of entries and deadlines adds."""

    predictions: list[NewPrediction]
    labels: list[NewLabel]
    examples: list[NewExample]
    classes: list[NewClass]
