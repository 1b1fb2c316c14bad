"""What a dry run remarks on in the labels of a table: those that are taken, and may be a mistake."""

import msgspec
from msgspec.structs import replace

from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.duration import duration

__all__ = ["LabelRemarks", "RemarkedLabels"]

_CLASSES_NAMED = 20


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
        Those that come after the pipeline's wait, and are marked as late.
    expired
        Those whose prediction comes after the wait, and are dropped.
    undeclared
        Those of classes that are not declared, if any classes are.
    """

    def __init__(self, rule: LabelRule) -> None:
        self._wait, self._declared = duration(rule.wait), frozenset(rule.known_classes)
        self.late: RemarkedLabels | None = None
        self.expired: RemarkedLabels | None = None
        self.undeclared: RemarkedLabels | None = None

    def see(self, prediction: Prediction, label: Label) -> None:
        """Look at the next row."""
        after = label.known_at - prediction.served_at
        if after > self._wait:
            self.late = _plus(self.late, label)
        elif -after > self._wait:
            self.expired = _plus(self.expired, label)
        if self._declared and isinstance(label.value, str) and label.value not in self._declared:
            self.undeclared = _plus(self.undeclared, label, label.value)


def _plus(seen: RemarkedLabels | None, label: Label, name: str | None = None) -> RemarkedLabels:
    """Count a label more, of a class if it is named."""
    before = seen or RemarkedLabels(rows=0, prediction_id=label.prediction_id)
    classes = before.classes
    if name is not None and name not in classes and len(classes) < _CLASSES_NAMED:
        classes += (name,)
    return replace(before, rows=before.rows + 1, classes=classes)
