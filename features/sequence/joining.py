"""The rule by which predictions and labels become examples: pure, and blind to how they were batched.

Entries are taken in the order of the inbox. Each has an *effective time*: when it was received, or the
time of the entry before it where a clock went back. A prediction's *deadline* is its effective time
plus the pipeline's wait; deadlines fall between entries by time, a label received exactly at the
deadline being on time. So the examples and their offsets depend on the entries and their times alone.

The *truth* of a prediction is, of its labels that have not expired, that of the highest source by the
rule's precedence; among those of like rank the one that became known last, and then the one received
last. A label that is not the truth when it comes is a revision and makes no example. A label that is
held back for its class is never the truth; once a person has named the class, a further revision tells
the same by that name, and may be.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import msgspec

from headwater.features.sequence.join_records import (
    Arrival,
    Deadline,
    HeldLabel,
    Joined,
    KnownLabel,
    KnownPrediction,
    NewClass,
    NewExample,
    NewLabel,
    NewPrediction,
    StoredLabel,
)
from headwater.infra.clock import from_us
from headwater.spec.data.checksum import payload_crc
from headwater.spec.data.label import LabelRule, class_digest
from headwater.spec.data.records import Label, LabelValue
from headwater.spec.duration import duration

__all__ = ["Joiner"]

_MICROSECOND = timedelta(microseconds=1)


class Truth:
    """The rule that says which of a prediction's labels is the truth.

    Parameters
    ----------
    rule
        The pipeline's label rule.
    """

    def __init__(self, rule: LabelRule) -> None:
        self._wait_us = duration(rule.wait) // _MICROSECOND
        self._ranks = rule.ranks

    def in_time(self, known: KnownPrediction) -> Sequence[KnownLabel]:
        """Return the labels whose prediction came within the wait."""
        since_us = known.effective_at_us - self._wait_us
        return [label for label in known.labels if label.effective_at_us >= since_us]

    def usable(self, known: KnownPrediction) -> Sequence[KnownLabel]:
        """Return the labels that may be the truth."""
        return [label for label in self.in_time(known) if not label.held]

    def of(self, labels: Sequence[KnownLabel]) -> KnownLabel:
        """Return the truth of some labels, at least one."""
        ranks = self._ranks
        return max(labels, key=lambda label: (ranks[label.source], label.known_at_us, label.received))

    def changes(self, known: KnownPrediction, label: KnownLabel) -> bool:
        """Return whether a new label is the truth, and no example says so yet."""
        if known.example is not None and known.learned == label.value:
            return False
        if len(known.labels) == 1:  # nearly every one
            return label.effective_at_us >= known.effective_at_us - self._wait_us
        usable = self.usable(known)  # none, if a label expired before its class was named
        return bool(usable) and label is self.of(usable)


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
        self._truth = Truth(rule)
        self._declared = frozenset(rule.known_classes)
        self._holds = rule.hold is True
        self._names: dict[str, str | None] = {}
        self._known = known
        self._due = deque(deadlines)
        self._watches = self._by_window or self._timeout is not None
        self.next_position = next_position
        self.next_offset = next_offset
        self.parked = parked
        self.expired = expired
        self.last_fired = -1
        self.joined = Joined([], [], [], [])

    def fold(
        self, arrivals: Sequence[Arrival], until_us: int, names: Mapping[str, str | None] | None = None
    ) -> Joined:
        """Take all arrivals, and every deadline before `until_us`.

        Parameters
        ----------
        arrivals, until_us
            The batch.
        names
            Of the batch's classes that are not declared, those that came before, each with what it is;
            None until a person named it.
        """
        self._names.update(names or {})
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
        self.joined.predictions.append(
            NewPrediction(
                position, arrival.id, now_us, arrival.payload, arrival.crc, arrival.recorded_by
            )
        )
        known.position, known.effective_at_us = position, now_us
        if self._watches:
            self._due.append(Deadline(now_us + self._wait_us, position, arrival.id))
        if known.labels:
            usable = self._truth.usable(known)
            self.parked -= len(known.labels)
            self.expired += len(known.labels) - len(self._truth.in_time(known))
            if usable and not self._by_window:
                self._emit(known, self._truth.of(usable), now_us)

    def release(self, held: HeldLabel, becomes: str, now_us: int) -> None:
        """Take a label that was held back, now that a person has named its class."""
        self._take_named(held, becomes, now_us)

    def take_rows(self) -> Joined:
        """Return the rows so far, which are not returned again."""
        joined, self.joined = self.joined, Joined([], [], [], [])
        return joined

    def _take_label(self, arrival: Arrival, told: StoredLabel) -> None:
        known = self._known.get(arrival.id)
        if known is None:
            known = self._known[arrival.id] = KnownPrediction()
        now_us = arrival.effective_at_us
        late = known.position is not None and now_us > known.effective_at_us + self._wait_us
        becomes = self._becomes(told.value, now_us)
        label = self._add_label(known, arrival, told, late=late, held=becomes != told.value)
        if not label.held:
            self._weigh(known, label, now_us)
        elif isinstance(becomes, str):
            self._take_named(HeldLabel(label.position, arrival, told, late), becomes, now_us)

    def _take_named(self, held: HeldLabel, becomes: str, now_us: int) -> None:
        """Add the revision that tells a held label's truth by the name of its class."""
        arrival, known = held.arrival, self._known[held.arrival.id]
        told = msgspec.structs.replace(held.told, value=becomes, instead_of=held.position)
        stored = msgspec.json.decode(arrival.payload)
        payload = msgspec.json.encode(stored | {"value": becomes, "instead_of": held.position})
        renamed = Arrival(arrival.id, arrival.effective_at_us, told, payload, payload_crc(payload))
        self._weigh(known, self._add_label(known, renamed, told, late=held.late), now_us)

    def _becomes(self, value: LabelValue, now_us: int) -> LabelValue | None:
        """Return what a label says by the names of classes; None if that is to be asked."""
        if not self._declared or not isinstance(value, str) or value in self._declared:
            return value
        if value not in self._names:
            self._names[value] = None
            new = NewClass(class_digest(value), value, self.next_position, now_us)
            self.joined.classes.append(new)
        return self._names[value] if self._holds else value

    def _weigh(self, known: KnownPrediction, label: KnownLabel, now_us: int) -> None:
        """Emit a label if it is the truth; in a window, its end decides."""
        if known.position is None:
            return
        if self._by_window and now_us <= known.effective_at_us + self._wait_us:
            return
        if self._truth.changes(known, label):
            self._emit(known, label, now_us)

    def _fire_before(self, until_us: int) -> None:
        while self._due and self._due[0].due_us < until_us:
            due = self._due.popleft()
            due_us, self.last_fired, prediction_id = due.due_us, due.position, due.id
            known = self._known[prediction_id]
            if known.example is not None:
                continue
            usable = self._truth.usable(known)
            if usable and self._by_window:
                self._emit(known, self._truth.of(usable), due_us)
            elif not self._truth.in_time(known) and self._timeout is not None:
                payload = _timed_out(prediction_id, self._timeout, due_us)
                told = StoredLabel(self._timeout, from_us(due_us), "timeout")
                arrival = Arrival(prediction_id, due_us, told, payload, payload_crc(payload))
                label = self._add_label(known, arrival, told, late=False)
                self._emit(known, label, due_us)

    def _add_label(
        self,
        known: KnownPrediction,
        arrival: Arrival,
        told: StoredLabel,
        *,
        late: bool,
        held: bool = False,
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
                class_digest(str(told.value)) if held else None,
                arrival.crc,
            )
        )
        self.parked += known.position is None
        label = told.received(position, now_us, held=held)
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
