"""One difference between two declarations of a pipeline."""

from typing import Literal

import msgspec

__all__ = ["FRESH", "ORDER", "Difference", "Way", "is_of_feature"]

Way = Literal["on", "free", "later", "fresh", "back"]
"""The way on from a difference: none is needed, and what was learned goes on, or has not seen it, or
later records alone go by it; a new line; to put it back."""

FRESH = (
    "start a new line: headwater train PIPELINE --fresh, or headwater plan PIPELINE --apply and the "
    "next update; or put it back"
)
"""How a new line is started, in words."""

ORDER = "the features' order"
"""The field of a difference in the order of the features that both have."""

_LONGEST = 60


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between two declarations.

    Parameters
    ----------
    field
        What differs: ``"feature 'k'"``, ``"label.wait"``, ``"task"``, ``"LogisticRegression.l2"``.
    was, now
        As it was stored, and as it is declared; shortened.
    way, hint
        The way on, as a word and in words.
    """

    field: str
    was: str
    now: str
    way: Way
    hint: str = FRESH

    def __str__(self) -> str:
        return f"{self.field} was {_short(self.was)}, is {_short(self.now)}"


def is_of_feature(field: str) -> bool:
    """Return whether a field is a feature, or their order; not the task, the label rule or the learner.

    >>> is_of_feature("feature 'k'"), is_of_feature("label.wait")
    (True, False)
    """
    return field.startswith("feature ") or field == ORDER


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
