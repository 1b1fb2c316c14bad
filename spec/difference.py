"""One difference between two declarations of a pipeline."""

from typing import Literal

import msgspec

__all__ = ["FRESH", "Difference", "Way"]

Way = Literal["on", "free", "later", "fresh", "back"]
"""The way on from a difference: none is needed, and what was learned goes on, or has not seen it, or
later records alone go by it; a new line; to put it back."""

FRESH = (
    "start a new line: headwater train PIPELINE --fresh, or headwater plan PIPELINE --apply and the "
    "next update; or put it back"
)
"""How a new line is started, in words."""

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


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
