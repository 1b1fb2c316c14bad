"""The rule by which predictions and labels become examples: pure, and blind to how they were batched.

Entries are taken in the order of the inbox. Each has an *effective time*: when it was received, or the
time of the entry before it where a clock went back. A prediction's *deadline* is its effective time
plus the pipeline's wait; deadlines fall between entries by time, a label received exactly at the
deadline being on time. So the examples and their offsets depend on the entries and their times alone.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

import msgspec

from headwater.features.inbox import LABEL, PREDICTION
from headwater.spec.duration import duration
from headwater.spec.label import LabelRule
from headwater.spec.records import LabelValue

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
]

_MICROSECOND = timedelta(microseconds=1)


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """An entry of the inbox with its effective time; `value` is None for a prediction."""

    kind: int
    id: str
    effective_at_us: int
    value: LabelValue | None
    payload: bytes


class Deadline(msgspec.Struct, frozen=True, gc=False):
    """A prediction whose wait ends."""

    due_us: int
    position: int
    id: str


class KnownLabel(msgspec.Struct, frozen=True, gc=False):
    """A revision of a label."""

    position: int
    value: LabelValue
    effective_at_us: int


class NewPrediction(msgspec.Struct, frozen=True, gc=False):
    """A row to insert."""

    position: int
    id: str
    effective_at_us: int
    payload: bytes


class NewLabel(msgspec.Struct, frozen=True, gc=False):
    """A row to insert; `timeout` holds the value that the rule made, and `payload` is empty then."""

    position: int
    prediction_id: str
    revision: int
    effective_at_us: int
    late: bool
    payload: bytes
    timeout: LabelValue | None


class NewExample(msgspec.Struct, frozen=True, gc=False):
    """A row to insert."""

    offset: int
    prediction_position: int
    label_position: int
    emitted_at_us: int
    supersedes: int | None


class KnownPrediction(msgspec.Struct, gc=False):
    """All that is known under one prediction id.

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
    """What a batch of entries and deadlines came to."""

    predictions: list[NewPrediction]
    labels: list[NewLabel]
    examples: list[NewExample]


class Joiner:
    """Folds entries and deadlines into examples.

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
    parked
        How many labels wait for their prediction.
    """

    def __init__(
        self,
        rule: LabelRule,
        known: dict[str, KnownPrediction],
        deadlines: Iterable[Deadline],
        next_position: int,
        next_offset: int,
        parked: int = 0,
    ) -> None:
        self._wait_us = duration(rule.wait) // _MICROSECOND
        self._by_window = rule.maturity == "window"
        self._timeout = rule.timeout
        self._known = known
        self._due = deque(deadlines)
        self._watches = self._by_window or self._timeout is not None
        self.next_position = next_position
        self.next_offset = next_offset
        self.parked = parked
        self.last_fired = -1
        self.joined = Joined([], [], [])

    def fold(self, arrivals: Sequence[Arrival], until_us: int) -> Joined:
        """Take all arrivals, and every deadline before `until_us`."""
        due = self._due
        for arrival in arrivals:
            if due and due[0].due_us < arrival.effective_at_us:
                self._fire_before(arrival.effective_at_us)
            if arrival.kind == PREDICTION:
                self._take_prediction(arrival)
            elif arrival.kind == LABEL:
                self._take_label(arrival)
        self._fire_before(until_us)
        return self.joined

    def _take_prediction(self, arrival: Arrival) -> None:
        known = self._known.get(arrival.id)
        if known is None:
            known = self._known[arrival.id] = KnownPrediction()
        elif known.position is not None:
            return  # another host recorded it: the first one counts
        position = self._give_position()
        now_us = arrival.effective_at_us
        self.joined.predictions.append(NewPrediction(position, arrival.id, now_us, arrival.payload))
        known.position, known.effective_at_us = position, now_us
        self.parked -= len(known.labels)
        if self._watches:
            self._due.append(Deadline(now_us + self._wait_us, position, arrival.id))
        if known.labels and not self._by_window:
            newest = known.labels[-1]
            if now_us - newest.effective_at_us <= self._wait_us:
                self._emit(known, newest, now_us)

    def _take_label(self, arrival: Arrival) -> None:
        known = self._known.get(arrival.id)
        if known is None:
            known = self._known[arrival.id] = KnownPrediction()
        now_us = arrival.effective_at_us
        waiting = known.position is None or now_us <= known.effective_at_us + self._wait_us
        if arrival.value is None:
            return
        label = self._add_label(
            arrival.id, known, arrival.value, now_us, late=not waiting, payload=arrival.payload
        )
        if known.position is None:
            self.parked += 1
            return
        if waiting and self._by_window:
            return
        if known.example is None or known.learned != label.value:
            self._emit(known, label, now_us)

    def _fire_before(self, until_us: int) -> None:
        while self._due and self._due[0].due_us < until_us:
            due = self._due.popleft()
            due_us, self.last_fired, prediction_id = due.due_us, due.position, due.id
            known = self._known[prediction_id]
            if known.example is not None:
                continue
            on_time = [
                label
                for label in known.labels
                if label.effective_at_us >= known.effective_at_us - self._wait_us
            ]
            if on_time and self._by_window:
                self._emit(known, on_time[-1], due_us)
            elif not on_time and self._timeout is not None:
                label = self._add_label(
                    prediction_id, known, self._timeout, due_us, late=False, payload=None
                )
                self._emit(known, label, due_us)

    def _add_label(
        self,
        prediction_id: str,
        known: KnownPrediction,
        value: LabelValue,
        now_us: int,
        *,
        late: bool,
        payload: bytes | None,
    ) -> KnownLabel:
        label = KnownLabel(self._give_position(), value, now_us)
        self.joined.labels.append(
            NewLabel(
                label.position,
                prediction_id,
                len(known.labels),
                now_us,
                late,
                payload or b"",
                value if payload is None else None,
            )
        )
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

    def _give_position(self) -> int:
        position = self.next_position
        self.next_position += 1
        return position
