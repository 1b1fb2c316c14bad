"""The label rule of a declaration as joining goes by it: which label is the truth, when it is due."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from headwater.features.sequence.join_records import KnownLabel
from headwater.spec.data.due import due_between, moment_us
from headwater.spec.data.label import DUE_AT, LabelRule
from headwater.spec.data.records import LabelValue
from headwater.spec.duration import duration

__all__ = ["JoiningRule", "JoiningRules", "KnownPrediction"]

_MICROSECOND = timedelta(microseconds=1)


class JoiningRule:
    """The rule by which the predictions of one declaration are joined with their labels.

    Parameters
    ----------
    rule
        The declaration's label rule.

    Attributes
    ----------
    wait_us
        How long a label may come before its prediction, and after it where no due time is named.
    is_delayed
        Whether an example waits for the due time, though the label has come.
    watches
        Whether something happens at the due time.
    names_due
        Whether each prediction names its due time.
    timeout
        The label at the due time where none came, or None.
    """

    __slots__ = (
        "_due",
        "_most_us",
        "_ranks",
        "is_delayed",
        "names_due",
        "timeout",
        "wait_us",
        "watches",
    )

    def __init__(self, rule: LabelRule) -> None:
        self.wait_us = duration(rule.wait) // _MICROSECOND
        self.is_delayed = rule.is_delayed
        self.watches = rule.watches
        self.timeout = rule.timeout
        self._ranks = rule.ranks
        self._due = None if rule.due is UNSET else _NamedDue(rule.due)
        self._most_us = 0 if rule.most is UNSET else duration(rule.most) // _MICROSECOND
        self.names_due = self._due is not None

    def due_us(self, payload: bytes, received_us: int) -> int:
        """Return when the truth of a prediction is due."""
        if self._due is None:
            return received_us + self.wait_us
        return due_between(self._due.of(payload), received_us, self._most_us)

    def in_time(self, known: "KnownPrediction") -> Sequence[KnownLabel]:
        """Return the labels whose prediction came within the wait."""
        since_us = known.effective_at_us - self.wait_us
        return [label for label in known.labels if label.effective_at_us >= since_us]

    def usable(self, known: "KnownPrediction") -> Sequence[KnownLabel]:
        """Return the labels that may be the truth."""
        return [label for label in self.in_time(known) if not label.held]

    def truth(self, labels: Sequence[KnownLabel]) -> KnownLabel:
        """Return the truth of some labels, at least one."""
        ranks = self._ranks
        return max(labels, key=lambda label: (ranks[label.source], label.known_at_us, label.received))

    def changes(self, known: "KnownPrediction", label: KnownLabel) -> bool:
        """Return whether a new label is the truth, and no example says so yet."""
        if known.example is not None and known.learned == label.value:
            return False
        if len(known.labels) == 1:  # nearly every one
            return label.effective_at_us >= known.effective_at_us - self.wait_us
        usable = self.usable(known)  # none, if a label expired before its class was named
        return bool(usable) and label is self.truth(usable)


class JoiningRules(NamedTuple):
    """The rules by which a batch is joined.

    Parameters
    ----------
    classes
        The label rule of the process that sequences: by it labels of other classes are held back.
    by_number
        By number of a declaration, its rule: those under which the predictions were recorded.
    """

    classes: LabelRule
    by_number: Mapping[int | None, JoiningRule]


class KnownPrediction(msgspec.Struct, gc=False):
    """The known state of one prediction id: its labels and its newest example.

    Parameters
    ----------
    position
        The prediction's, or None while it has not come.
    effective_at_us, due_us
        The prediction's effective time, and when its truth is due.
    rule
        That of the declaration under which it was recorded; None while it has not come.
    labels
        Its labels, by revision.
    example
        Offset of its newest example, or None.
    learned
        The value that the newest example carries.
    """

    position: int | None = None
    effective_at_us: int = 0
    due_us: int = 0
    rule: JoiningRule | None = None
    labels: tuple[KnownLabel, ...] = ()
    example: int | None = None
    learned: LabelValue | None = None


class _NamedDue:
    """Reads the named time of stored predictions: the one field that says it, and skips the rest."""

    __slots__ = ("_decode", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        fields: list[tuple[str, Any, Any]] = [(DUE_AT, datetime | None, None)]
        if name != DUE_AT:
            served = msgspec.defstruct("Features", [(name, str | int | float | None, None)])
            fields = [("features", served, msgspec.NODEFAULT)]
        self._decode: Any = msgspec.json.Decoder(msgspec.defstruct("Stored", fields)).decode

    def of(self, payload: bytes) -> int | None:
        """Return the named time in microseconds; None where it is null or not sent."""
        stored = self._decode(payload)
        of = stored if self._name == DUE_AT else stored.features
        return moment_us(getattr(of, self._name))
