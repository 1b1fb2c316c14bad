"""The label rule of a pipeline: how long a label may take, and what a revision does."""

from typing import Literal

import msgspec

from headwater.spec.data.records import LabelValue
from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError

__all__ = ["LabelRule", "Maturity", "RevisionPolicy"]

Maturity = Literal["arrival", "window"]
RevisionPolicy = Literal["learn", "ignore"]


class LabelRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rule by which labels are joined to a pipeline's predictions.

    Parameters
    ----------
    wait
        How long after its prediction a label may take. A later one is counted as late. A label whose
        prediction has not come within this long is dropped, and counted as expired.
    timeout
        The label of a prediction whose wait has passed without one; None leaves it without a label:
        *unavailable* is never *negative*.
    maturity
        ``"arrival"`` emits an example when both halves are there. ``"window"`` emits it when the
        prediction's wait has passed, so that every outcome had the same time to show; take it where
        a label's delay depends on its value.
    revision
        What a stateful update does with a revised label whose first value it has learned: ``"learn"``
        the correction too, or ``"ignore"`` it. Stateless updates and metrics use the newest always.
    """

    wait: Duration
    timeout: LabelValue | None = None
    maturity: Maturity = "arrival"
    revision: RevisionPolicy = "learn"

    def __post_init__(self) -> None:
        duration(self.wait, "wait")
        if self.maturity not in ("arrival", "window"):
            raise DeclarationError(
                f"maturity={self.maturity!r} is not known", hint="write 'arrival' or 'window'"
            )
        if self.revision not in ("learn", "ignore"):
            raise DeclarationError(
                f"revision={self.revision!r} is not known", hint="write 'learn' or 'ignore'"
            )
