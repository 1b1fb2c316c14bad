"""The rule by which predictions and labels become examples: pure, and blind to how they were batched.

Entries are taken in the order of the inbox. Each has an *effective time*: when it was received, or the
time of the entry before it where a clock went back. A prediction is joined by the label rule of the
declaration that it was recorded under, whatever is declared since: its truth is *due* at its effective
time plus the rule's wait, or at the time that it names itself, which is no earlier. Deadlines fall
between entries by time, and among equal times by position, a label received exactly at the deadline
being on time. So the examples and their offsets depend on the entries, their times and their
declarations alone, and the times of examples never fall.

The *truth* of a prediction is, of its labels that have not expired, that of the highest source by its
rule's precedence; among those of like rank the one that became known last, and then the one received
last. A label that is not the truth when it comes is a revision and makes no example. A label that is
held back for its class is never the truth; once a person has named the class, a further revision tells
the same by that name, and may be.
"""

from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

import msgspec

from headwater.features.sequence.join_records import (
    Arrival,
    Deadline,
    HeldLabel,
    Joined,
    KnownLabel,
    NewClass,
    NewExample,
    NewLabel,
    NewPrediction,
    StoredLabel,
)
from headwater.features.sequence.joining_rule import JoiningRule, JoiningRules, KnownPrediction
from headwater.infra.clock import from_us
from headwater.spec.data.checksum import payload_crc
from headwater.spec.data.label import LabelRule, class_digest
from headwater.spec.data.records import Label, LabelValue

__all__ = ["Joiner", "before"]


class Joiner:
    """The fold of entries and deadlines into examples.

    Parameters
    ----------
    rules
        By which the batch's records are joined.
    known
        What the stores hold under the ids that will be met; changed in place.
    deadlines
        Those that may fall due.
    next_position, next_offset
        The first ones to give.
    parked, expired
        How many labels wait for their prediction, and how many were dropped since it came too late.

    Attributes
    ----------
    due
        A heap of the deadlines that have not fallen due: after a batch, of its predictions.
    """

    def __init__(
        self,
        rules: JoiningRules,
        known: dict[str, KnownPrediction],
        deadlines: Iterable[Deadline],
        next_position: int,
        next_offset: int,
        parked: int = 0,
        expired: int = 0,
    ) -> None:
        self._rules, self._classes = rules.by_number, _Classes(rules.classes)
        self._known = known
        self.due = list(deadlines)
        heapify(self.due)
        self.next_position = next_position
        self.next_offset = next_offset
        self.parked = parked
        self.expired = expired
        self.last_due_us: int | None = None
        self.joined = Joined.nothing()

    def fold(
        self,
        arrivals: Sequence[Arrival],
        until: Deadline,
        names: Mapping[str, str | None] | None = None,
    ) -> Joined:
        """Take all arrivals, and every deadline before `until`.

        Parameters
        ----------
        arrivals, until
            The batch.
        names
            Of the batch's classes that are not declared, those that came before, each with what it is;
            None until a person named it.
        """
        self._classes.names.update(names or {})
        due = self.due
        for arrival in arrivals:
            if due and due[0].due_us < arrival.effective_at_us:
                self._fire_before(before(arrival.effective_at_us))
            if arrival.told is None:
                self._take_prediction(arrival)
            else:
                self._take_label(arrival, arrival.told)
        self._fire_before(until)
        return self.joined

    def _take_prediction(self, arrival: Arrival) -> None:
        known = self._known.get(arrival.id)
        if known is None:
            known = self._known[arrival.id] = KnownPrediction()
        elif known.position is not None:
            return  # another host recorded it: the first one counts
        position, now_us, payload = self.next_position, arrival.effective_at_us, arrival.payload
        self.next_position += 1
        rule = self._rules[arrival.recorded_by]
        due_us = rule.due_us(payload, now_us) if rule.names_due else now_us + rule.wait_us
        self.joined.predictions.append(
            NewPrediction(
                position,
                arrival.id,
                now_us,
                payload,
                arrival.crc,
                arrival.recorded_by,
                due_us if rule.names_due else None,
            )
        )
        known.position, known.effective_at_us = position, now_us
        known.rule, known.due_us = rule, due_us
        if rule.watches:
            heappush(self.due, Deadline(due_us, position, arrival.id))
        if known.labels:
            usable = rule.usable(known)
            self.parked -= len(known.labels)
            self.expired += len(known.labels) - len(rule.in_time(known))
            if usable and not rule.is_delayed:
                self._emit(known, rule.truth(usable), now_us)

    def take_rows(self) -> Joined:
        """Return the rows so far, which are not returned again."""
        joined, self.joined = self.joined, Joined.nothing()
        return joined

    def _take_label(self, arrival: Arrival, told: StoredLabel) -> None:
        known = self._known.get(arrival.id)
        if known is None:
            known = self._known[arrival.id] = KnownPrediction()
        now_us = arrival.effective_at_us
        late = known.position is not None and now_us > known.due_us
        becomes: LabelValue | None = told.value
        if self._classes.declared:
            becomes = self._classes.becomes(told.value)
            if self._classes.is_new(told.value):
                self.joined.classes.append(_new_class(str(told.value), self.next_position, now_us))
        label = self._add_label(known, arrival, told, late=late, held=becomes != told.value)
        if not label.held:
            self._weigh(known, label, now_us)
        elif isinstance(becomes, str):
            self.release(HeldLabel(label.position, arrival, told, late), becomes, now_us)

    def release(self, held: HeldLabel, becomes: str, now_us: int) -> None:
        """Add the revision that tells a held label's truth, now that its class has a name."""
        arrival, known = held.arrival, self._known[held.arrival.id]
        told = msgspec.structs.replace(held.told, value=becomes, instead_of=held.position)
        stored = msgspec.json.decode(arrival.payload)
        payload = msgspec.json.encode(stored | {"value": becomes, "instead_of": held.position})
        renamed = Arrival(arrival.id, arrival.effective_at_us, told, payload, payload_crc(payload))
        self._weigh(known, self._add_label(known, renamed, told, late=held.late), now_us)

    def _weigh(self, known: KnownPrediction, label: KnownLabel, now_us: int) -> None:
        """Emit a label if it is the truth; where an example waits, its due time decides."""
        rule = known.rule
        if rule is None or (rule.is_delayed and now_us <= known.due_us):
            return
        if rule.changes(known, label):
            self._emit(known, label, now_us)

    def _fire_before(self, until: Deadline) -> None:
        while self.due and self.due[0] < until:
            deadline = heappop(self.due)
            self.last_due_us = deadline.due_us
            known = self._known[deadline.id]
            if known.example is None and known.rule is not None:
                self._fire(known, known.rule, deadline)

    def _fire(self, known: KnownPrediction, rule: JoiningRule, deadline: Deadline) -> None:
        """Emit what is the truth at the due time, or the timeout's label where none came."""
        usable, due_us = rule.usable(known), deadline.due_us
        if usable and rule.is_delayed:
            self._emit(known, rule.truth(usable), due_us)
        elif rule.timeout is not None and not rule.in_time(known):
            told = StoredLabel(rule.timeout, from_us(due_us), "timeout")
            arrival = _timed_out(deadline.id, told, due_us)
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


class _Classes:
    """The classes of labels by the rule of the process that sequences, and the names of others."""

    def __init__(self, rule: LabelRule) -> None:
        self.declared = frozenset(rule.known_classes)
        self._holds = rule.hold is True
        self.names: dict[str, str | None] = {}

    def is_new(self, value: LabelValue) -> bool:
        """Return whether a label is of a class that is not declared and comes for the first time."""
        if not isinstance(value, str) or value in self.declared or value in self.names:
            return False
        self.names[value] = None
        return True

    def becomes(self, value: LabelValue) -> LabelValue | None:
        """Return what a label says by the names of classes; None if that is to be asked."""
        if not self._holds or not isinstance(value, str) or value in self.declared:
            return value
        return self.names.get(value)


def _new_class(name: str, position: int, now_us: int) -> NewClass:
    return NewClass(class_digest(name), name, position, now_us)


def before(due_us: int) -> Deadline:
    """Return the bound of all deadlines before a time."""
    return Deadline(due_us, -1, "")


def _timed_out(prediction_id: str, told: StoredLabel, due_us: int) -> Arrival:
    """Return the label that the timeout makes if none came."""
    label = Label(
        prediction_id=prediction_id,
        value=told.value,
        known_at=told.known_at,
        source="timeout",
        key="timeout",
    )
    payload = msgspec.json.encode(label)
    return Arrival(prediction_id, due_us, told, payload, payload_crc(payload))
