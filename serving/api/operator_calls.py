"""What operators' requests call, where that takes more than an expression in the table of operations."""

from typing import TYPE_CHECKING, Literal

from headwater.serving.api.operator_schemas import (
    ChampionBody,
    LearningBody,
    NameClassBody,
    QuarantineBody,
)
from headwater.spec.errors import SchemaError
from headwater.spec.rulings import AppearedClass, Learning, Reign

if TYPE_CHECKING:
    from headwater.loop.operator.operations import Operator
    from headwater.spec.recipe import OffsetRange

__all__ = ["make_champion", "name_class", "pause_or_resume", "quarantine"]


def make_champion(operator: "Operator", body: ChampionBody, by: str) -> Reign:
    """Promote a version, or roll back.

    Raises
    ------
    SchemaError
        If no version is named, or a promotion names offsets.
    """
    spans: list[OffsetRange] | Literal["learned"] = "learned"
    if body.quarantine != "learned":
        spans = [span.offsets for span in body.quarantine]
    if body.rollback:
        return operator.roll_back(body.version, by=by, reason=body.reason, quarantine=spans)
    if body.version is None:
        raise SchemaError("version: it is missing", hint="name a version, or roll back: rollback=true")
    if spans:
        raise SchemaError("quarantine: it goes with a rollback", hint="leave it out, or roll back")
    return operator.promote(body.version, by=by, reason=body.reason)


def pause_or_resume(operator: "Operator", body: LearningBody, by: str) -> Learning:
    """Pause online learning, or let it go on."""
    change = operator.pause if body.paused else operator.resume
    return change(by=by, reason=body.reason)


def name_class(operator: "Operator", body: NameClassBody, by: str) -> list[AppearedClass]:
    """Say what a new class is."""
    becomes = body.name if body.becomes is None else body.becomes
    return operator.name_class(body.name, becomes, by=by, reason=body.reason)


def quarantine(operator: "Operator", body: QuarantineBody, by: str) -> Learning:
    """Exclude offsets from every later recipe."""
    spans = [span.offsets for span in body.spans]
    return operator.quarantine(spans, by=by, reason=body.reason)
