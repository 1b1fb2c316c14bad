"""Rulings of people while a pipeline serves, and the state that they leave: plain data."""

from datetime import datetime

import msgspec

from headwater.spec.recipe import OffsetRange
from headwater.spec.serving.routing import Routing
from headwater.spec.updating.update import UpdateKind

__all__ = [
    "AppearedClass",
    "Learning",
    "Pause",
    "Reign",
    "RoutingStatus",
    "Ruling",
    "ShadowStatus",
    "VersionInRole",
]


class Reign(msgspec.Struct, frozen=True, kw_only=True):
    """A version's time as champion.

    Parameters
    ----------
    epoch
        Number of the reign, from 1.
    version, previous
        Who came, and whom it replaced.
    since
        When, by the pipeline's clock.
    by, reason
        Who decided, and why.
    """

    epoch: int
    version: str
    previous: str | None
    since: datetime
    by: str
    reason: str


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """A routing that was set at run time, or taken back.

    Parameters
    ----------
    number
        From 1 on.
    routing
        What was set; None returned to what the pipeline declares.
    since
        When, by the pipeline's clock.
    by, reason
        Who decided, and why.
    """

    number: int
    routing: Routing | None
    since: datetime
    by: str
    reason: str


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A halt of online learning.

    Parameters
    ----------
    offset
        The first one that is not learned.
    epoch
        Of the reign that learned then; a champion of a later reign serves as it is. 0 before the first.
    since
        When, by the pipeline's clock.
    by, reason
        Who decided, and why.
    """

    offset: int
    epoch: int
    since: datetime
    by: str
    reason: str


class AppearedClass(msgspec.Struct, frozen=True, kw_only=True):
    """A class of labels that was not declared when it came.

    Parameters
    ----------
    pipeline, name
        Whose labels, and the class as it was told.
    appeared_at
        When its first label was received.
    held
        How many labels are held back for it.
    becomes
        The class that it is, as a person named it; None until then.
    """

    pipeline: str
    name: str
    appeared_at: datetime
    held: int
    becomes: str | None


class Learning(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a pipeline's online learning.

    Parameters
    ----------
    pipeline
        Its name.
    pause
        The halt that is in force; None if it goes on.
    quarantined
        Offsets that no later recipe learns.
    """

    pipeline: str
    pause: Pause | None
    quarantined: tuple[OffsetRange, ...]


class ShadowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The progress of a shadow.

    Parameters
    ----------
    version
        Its number.
    behind
        How many sequenced records it has not seen yet.
    """

    version: str
    behind: int


class RoutingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The routing of requests, in force and declared.

    Parameters
    ----------
    pipeline
        Its name.
    number
        Of the ruling in force; 0 before the first.
    routing, declared
        What is in force, and what the pipeline declares; None if only its name is known.
    history
        The newest that were set at run time, oldest first.
    shadows
        The shadows that the routing names.
    """

    pipeline: str
    number: int
    routing: Routing | None
    declared: Routing | None
    history: tuple[Ruling, ...]
    shadows: tuple[ShadowStatus, ...]


class VersionInRole(msgspec.Struct, frozen=True, kw_only=True):
    """A version with its present roles.

    Parameters
    ----------
    number, parent
        Its own number, and that of the version it was fine-tuned from.
    roles
        ``"champion"``, ``"previous"``, ``"challenger"``, ``"shadow"``; ``"answers"`` for one that a
        routing gives a share.
    update, examples, learned, made_at, digest
        How it was made, the offsets it learned, how many examples, when, and its state's hash.
    refused
        Why a gate refused it; None if none did.
    """

    number: str
    parent: str | None
    roles: tuple[str, ...]
    update: UpdateKind
    examples: OffsetRange
    learned: int
    made_at: datetime
    digest: str
    refused: str | None
