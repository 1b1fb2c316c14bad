"""The bodies of operators' requests."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headwater.spec.data.values import LONGEST_CLASS
from headwater.spec.recipe import OffsetRange
from headwater.spec.serving.routing import Routing

__all__ = [
    "MOST_SPANS",
    "MOST_VERSIONS",
    "ChampionBody",
    "LearningBody",
    "NameClassBody",
    "OffsetSpan",
    "QuarantineBody",
    "RoutingBody",
    "ShadowBody",
    "VersionsQuery",
]

MOST_SPANS = 100
MOST_VERSIONS = 1_000

# In Python, $ alone lets a last line end through; other readers of the document have no \Z.
_Reason = Annotated[
    str,
    Meta(max_length=500, pattern="^[^\\x00-\\x1f\\x7f]*$(?!\\n)", description="Why, for the record"),
]
_Number = Annotated[str, Meta(pattern="^[1-9][0-9]{0,8}$(?!\\n)", description="Number of a version")]
_Shadow = Annotated[
    str, Meta(pattern="^([1-9][0-9]{0,8}|challenger)$(?!\\n)", description="A number, or challenger")
]
_Class = Annotated[str, Meta(min_length=1, max_length=LONGEST_CLASS)]
_Offset = Annotated[int, Meta(ge=0, lt=2**62)]


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the bodies: each may give a reason."""

    reason: _Reason = "over HTTP"


class RoutingBody(_Body, frozen=True, kw_only=True):
    """A routing to set.

    Parameters
    ----------
    routing
        The routing; null returns to the declared one.
    expected
        Number of the ruling that the operator saw: if there is a newer one, the request is refused as a
        conflict. Without it, the last request wins.
    """

    routing: Routing | None
    expected: Annotated[int, Meta(ge=0, lt=2**62)] | None = None


class ShadowBody(_Body, frozen=True, kw_only=True):
    """The version that becomes a shadow, or stops being one."""

    version: _Shadow


class LearningBody(_Body, frozen=True, kw_only=True):
    """Whether learning is paused."""

    paused: bool


class OffsetSpan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Offsets from `start` up to, but not including, `stop`."""

    start: _Offset
    stop: _Offset

    @property
    def offsets(self) -> OffsetRange:
        """The range."""
        return OffsetRange(self.start, self.stop)


_Spans = Annotated[tuple[OffsetSpan, ...], Meta(max_length=MOST_SPANS)]


class QuarantineBody(_Body, frozen=True, kw_only=True):
    """Offsets to quarantine: no later recipe learns them."""

    spans: Annotated[tuple[OffsetSpan, ...], Meta(min_length=1, max_length=MOST_SPANS)]


class ChampionBody(_Body, frozen=True, kw_only=True):
    """The version that becomes champion.

    Parameters
    ----------
    version
        Its number; a rollback without a number returns to the champion before this one.
    rollback
        Whether this returns to an earlier champion.
    quarantine
        With a rollback: offsets that no later recipe learns; ``"learned"`` for all that came since
        the version to return to stopped learning.
    """

    version: _Number | None = None
    rollback: bool = False
    quarantine: _Spans | Literal["learned"] = ()


class NameClassBody(_Body, frozen=True, kw_only=True):
    """What a class is whose labels came and were not declared.

    Parameters
    ----------
    name
        The class as it was told.
    becomes
        The class that it is really, which is known; null if its name is right.
    """

    name: _Class
    becomes: _Class | None = None


class VersionsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The number of newest versions to list."""

    last: Annotated[int, Meta(ge=1, le=MOST_VERSIONS)] = 20
