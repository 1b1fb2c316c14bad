"""Limits on how often a pipeline may be updated, whatever its triggers say."""

from datetime import timedelta

import msgspec

from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError
from headwater.spec.updating.evidence import Evidence

__all__ = ["Pace", "ago", "check_count"]


class Pace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits on how often a pipeline may be updated, whatever its triggers say.

    Parameters
    ----------
    warm_up
        None fires within this long of the champion's first day as champion.
    cool_down
        None fires within this long of the last decision that fired.
    budget, per
        At most so many fire within any stretch of that length.

    Raises
    ------
    DeclarationError
        If a duration is none, or `budget` and `per` do not come together.
    """

    warm_up: Duration | None = None
    cool_down: Duration | None = None
    budget: int | None = None
    per: Duration | None = None

    def __post_init__(self) -> None:
        for field in ("warm_up", "cool_down", "per"):
            if (text := getattr(self, field)) is not None:
                duration(text, field)
        if (self.budget is None) != (self.per is None):
            raise DeclarationError(
                "Pace has budget= or per= without the other", hint='write budget=4, per="7d"'
            )
        if self.budget is not None:
            check_count("Pace", self.budget)

    @property
    def cool_down_span(self) -> timedelta | None:
        """The cool-down as a length of time; None if there is none."""
        return None if self.cool_down is None else duration(self.cool_down)

    @property
    def horizon(self) -> timedelta:
        """The time for which fired decisions matter."""
        spans = [duration(text) for text in (self.cool_down, self.per) if text is not None]
        return max(spans, default=timedelta(0))

    def refuses(self, evidence: Evidence) -> str | None:
        """Return why no update may be asked for now; None if it may.

        One that is still being carried out holds back the next.
        """
        now, since = evidence.at, evidence.champion_since
        if evidence.open is not None:
            return f"decision {evidence.open} is still being carried out"
        if self.warm_up is not None and since is not None and now - since < duration(self.warm_up):
            return f"warm-up: champion for {ago(now - since)} of {self.warm_up}"
        last = max(evidence.fired, default=None)
        if self.cool_down is not None and last is not None and now - last < duration(self.cool_down):
            return f"cool-down: last fired {ago(now - last)} ago, of {self.cool_down}"
        if self.budget is not None and self.per is not None:
            spent = sum(now - fired < duration(self.per) for fired in evidence.fired)
            if spent >= self.budget:
                return f"budget: {spent} of {self.budget} updates within {self.per} are spent"
        return None


def ago(span: timedelta) -> str:
    """Return a length of time in words: in days from two days on, in hours below.

    >>> ago(timedelta(hours=3)), ago(timedelta(days=4))
    ('3.0 h', '4.0 d')
    """
    hours = span.total_seconds() / 3600
    return f"{hours / 24:.1f} d" if hours >= 48 else f"{hours:.1f} h"


def check_count(what: str, value: object) -> None:
    """Refuse anything but a whole number from 1 on.

    Raises
    ------
    DeclarationError
        With what to write instead.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DeclarationError(f"{what}({value!r}) is not a count", hint=f"write {what}(1_000), say")
