"""What a dry run remarks on in the labels of a table: those that are taken, and may be a mistake."""

from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from headwater.spec.data.due import due_between, moment_us
from headwater.spec.data.label import DUE_AT, LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.duration import duration

__all__ = ["LabelRemarks", "RemarkedLabels"]

_CLASSES_NAMED = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class RemarkedLabels(msgspec.Struct, frozen=True, kw_only=True):
    """Labels of an import with something in common.

    Parameters
    ----------
    rows
        How many rows.
    prediction_id
        The first one's prediction.
    classes
        If they are of classes that are not declared: these classes, twenty at most.
    """

    rows: int
    prediction_id: str
    classes: tuple[str, ...] = ()


class LabelRemarks:
    """Count the labels of an import that are late, expired, or of a class that is not declared.

    Parameters
    ----------
    rule
        The pipeline's label rule.

    Attributes
    ----------
    late
        Those that come after the wait or the due time, and are marked as late.
    expired
        Those whose prediction comes after the wait, and are dropped.
    undeclared
        Those of classes that are not declared, if any classes are.
    """

    def __init__(self, rule: LabelRule) -> None:
        self._wait, self._declared = duration(rule.wait), frozenset(rule.known_classes)
        self._due = rule.due
        self._most = self._wait if rule.most is UNSET else duration(rule.most)
        self.late: RemarkedLabels | None = None
        self.expired: RemarkedLabels | None = None
        self.undeclared: RemarkedLabels | None = None

    def see(self, prediction: Prediction, label: Label) -> None:
        """Look at the next row."""
        after = label.known_at - prediction.served_at
        if after > self._wait_of(prediction):
            self.late = _plus(self.late, label)
        elif -after > self._wait:
            self.expired = _plus(self.expired, label)
        if self._declared and isinstance(label.value, str) and label.value not in self._declared:
            self.undeclared = _plus(self.undeclared, label, label.value)

    def _wait_of(self, prediction: Prediction) -> timedelta:
        """Return how long after its prediction a label is in time."""
        if self._due is UNSET:
            return self._wait
        named = prediction.due_at if self._due == DUE_AT else prediction.features.get(self._due)
        most_us = self._most // _MICROSECOND
        received_us = (prediction.served_at - _EPOCH) // _MICROSECOND
        return (due_between(moment_us(named), received_us, most_us) - received_us) * _MICROSECOND


def _plus(seen: RemarkedLabels | None, label: Label, name: str | None = None) -> RemarkedLabels:
    """Count a label more, of a class if it is named."""
    before = seen or RemarkedLabels(rows=0, prediction_id=label.prediction_id)
    classes = before.classes
    if name is not None and name not in classes and len(classes) < _CLASSES_NAMED:
        classes += (name,)
    return replace(before, rows=before.rows + 1, classes=classes)
