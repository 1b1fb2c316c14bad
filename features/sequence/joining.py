"""The rule by which predictions and labels become examples: pure, and blind to how they were batched.

Entries are taken in the order of the inbox. Each has an *effective time*: when it was received, or the
time of the entry before it where a clock went back. A prediction's *deadline* is its effective time
plus the pipeline's wait; deadlines fall between entries by time, a label received exactly at the
deadline being on time. So the examples and their offsets depend on the entries and their times alone.

The *truth* of a prediction is, of its labels that have not expired, that of the highest source by the
rule's precedence; among those of like rank the one that became known last, and then the one received
last. A label that is not the truth when it comes is a revision and makes no example.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from headwater.infra.clock import from_us, to_us
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, LabelValue, Source
from headwater.spec.duration import duration

__all__ = [
    "Arrival",
    "Deadline",
    "Joined",
    "Joiner",
    "KnownLabel",
    "KnownPrediction",
    "NewExample",
    "NewLabel",
    "NewPrediction",
    "ToldLabel",
]

_MICROSECOND = timedelta(microseconds=1)


class KnownLabel(msgspec.Struct, frozen=True, gc=False):
    """A revision of a label, with the time at which it counts as known."""

    position: int
    value: LabelValue
    effective_at_us: int
    known_at_us: int
    source: Source


class ToldLabel(msgspec.Struct, gc=False):
    """What a stored label tells: the part of its payload that joining goes by; the rest is skipped."""

    value: LabelValue
    known_at: datetime
    source: Source = "natural"
    on_receipt: bool = False

    def received(self, position: int, effective_at_us: int) -> KnownLabel:
        """Return the label as received at a time; it counts as known then at the latest."""
        known_us = effective_at_us if self.on_receipt else min(to_us(self.known_at), effective_at_us)
        return KnownLabel(position, self.value, effective_at_us, known_us, self.source)


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """An entry of the inbox with its effective time; `told` is None for a prediction."""

    id: str
    effective_at_us: int
    told: ToldLabel | None
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


class NewLabel(msgspec.Struct, frozen=True, gc=False):
    """A row to insert; it names its prediction by position, or by id where that has not come."""

    position: int
    prediction_position: int | None
    prediction_id: str | None
    revision: int
    effective_at_us: int
    late: bool
    payload: bytes


class NewExample(msgspec.Struct, frozen=True, gc=False):
    """A row to insert."""

    offset: int
    prediction_position: int
    label_position: int
    emitted_at_us: int
    supersedes: int | None


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


class Joiner:
    """The fold of entries and deadlines into examples.

    Parameters
    ----------
    rule
        The pipeline's label rule.
    known
        What the stores hold under the ids that will be met; changed in place.
    deadlines
        Those that may fall due, in order.
    next_position, next_offset
        The first ones to give.
    parked, expired
        How many labels wait for their prediction, and how many were dropped since it came too late.
    """

    def __init__(
        self,
        rule: LabelRule,
        known: dict[str, KnownPrediction],
        deadlines: Iterable[Deadline],
        next_position: int,
        next_offset: int,
        parked: int = 0,
        expired: int = 0,
    ) -> None:
        self._wait_us = duration(rule.wait) // _MICROSECOND
        self._by_window = rule.maturity == "window"
        self._timeout = rule.timeout
        self._ranks = rule.ranks
        self._known = known
        self._due = deque(deadlines)
        self._watches = self._by_window or self._timeout is not None
        self.next_position = next_position
        self.next_offset = next_offset
        self.parked = parked
        self.expired = expired
        self.last_fired = -1
        self.joined = Joined([], [], [])

    def fold(self, arrivals: Sequence[Arrival], until_us: int) -> Joined:
        """Take all arrivals, and every deadline before `until_us`."""
        due = self._due
        for arrival in arrivals:
            if due and due[0].due_us < arrival.effective_at_us:
                self._fire_before(arrival.effective_at_us)
            if arrival.told is None:
                self._take_prediction(arrival)
            else:
                self._take_label(arrival, arrival.told)
        self._fire_before(until_us)
        return self.joined

    def _take_prediction(self, arrival: Arrival) -> None:
        known = self._known.get(arrival.id)
        if known is None:
            known = self._known[arrival.id] = KnownPrediction()
        elif known.position is not None:
            return  # another host recorded it: the first one counts
        position, now_us = self.next_position, arrival.effective_at_us
        self.next_position += 1
        self.joined.predictions.append(NewPrediction(position, arrival.id, now_us, arrival.payload))
        known.position, known.effective_at_us = position, now_us
        if self._watches:
            self._due.append(Deadline(now_us + self._wait_us, position, arrival.id))
        if known.labels:
            usable = self._usable(known)
            self.parked -= len(known.labels)
            self.expired += len(known.labels) - len(usable)
            if usable and not self._by_window:
                self._emit(known, self._truth(usable), now_us)

    def _take_label(self, arrival: Arrival, told: ToldLabel) -> None:
        known = self._known.get(arrival.id)
        if known is None:
            known = self._known[arrival.id] = KnownPrediction()
        now_us = arrival.effective_at_us
        waiting = known.position is None or now_us <= known.effective_at_us + self._wait_us
        label = self._add_label(known, arrival, told, late=not waiting)
        if known.position is None:
            self.parked += 1
        elif not (waiting and self._by_window) and self._changes(known, label):
            self._emit(known, label, now_us)

    def _fire_before(self, until_us: int) -> None:
        while self._due and self._due[0].due_us < until_us:
            due = self._due.popleft()
            due_us, self.last_fired, prediction_id = due.due_us, due.position, due.id
            known = self._known[prediction_id]
            if known.example is not None:
                continue
            on_time = self._usable(known)
            if on_time and self._by_window:
                self._emit(known, self._truth(on_time), due_us)
            elif not on_time and self._timeout is not None:
                payload = _timed_out(prediction_id, self._timeout, due_us)
                told = ToldLabel(self._timeout, from_us(due_us), "timeout")
                arrival = Arrival(prediction_id, due_us, told, payload)
                label = self._add_label(known, arrival, told, late=False)
                self._emit(known, label, due_us)

    def _changes(self, known: KnownPrediction, label: KnownLabel) -> bool:
        """Return whether a new label is the truth, and no example says so yet."""
        if known.example is not None and known.learned == label.value:
            return False
        return label is self._truth(self._usable(known))

    def _usable(self, known: KnownPrediction) -> Sequence[KnownLabel]:
        """Return the labels whose prediction came within the wait."""
        since_us = known.effective_at_us - self._wait_us
        return [label for label in known.labels if label.effective_at_us >= since_us]

    def _truth(self, labels: Sequence[KnownLabel]) -> KnownLabel:
        ranks = self._ranks
        return max(labels, key=lambda label: (ranks[label.source], label.known_at_us, label.position))

    def _add_label(
        self, known: KnownPrediction, arrival: Arrival, told: ToldLabel, *, late: bool
    ) -> KnownLabel:
        position, now_us = self.next_position, arrival.effective_at_us
        self.next_position += 1
        revision = len(known.labels)
        self.joined.labels.append(
            NewLabel(
                position,
                known.position,
                arrival.id if known.position is None else None,
                revision,
                now_us,
                late,
                arrival.payload,
            )
        )
        label = told.received(position, now_us)
        known.labels += (label,)
        return label

    def _emit(self, known: KnownPrediction, label: KnownLabel, now_us: int) -> None:
        if known.position is None:
            return
        offset = self.next_offset
        self.next_offset += 1
        self.joined.examples.append(
            NewExample(offset, known.position, label.position, now_us, known.example)
        )
        known.example, known.learned = offset, label.value


def _timed_out(prediction_id: str, value: LabelValue, due_us: int) -> bytes:
    """Encode the label that the timeout makes if none came."""
    return msgspec.json.encode(
        Label(
            prediction_id=prediction_id,
            value=value,
            known_at=from_us(due_us),
            source="timeout",
            key="timeout",
        )
    )
