"""Decisions: the triggers' answer at one moment, with its evidence and its outcome."""

from datetime import datetime
from hashlib import sha256

import msgspec

from headwater.spec.updating.evidence import Evidence
from headwater.spec.updating.triggers.trigger_rule import TriggerAnswer
from headwater.spec.updating.update import UpdateKind

__all__ = ["Decision", "Outcome", "decision_of"]

_ID_LENGTH = 20


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the update that a decision asked for.

    Parameters
    ----------
    ended_at
        When, UTC, by the pipeline's clock.
    version
        Number of the version it made; None if there was nothing to learn.
    promoted
        Whether that version became champion.
    reason
        Why it ended so, in words.
    """

    ended_at: datetime
    version: str | None
    promoted: bool
    reason: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The triggers' answer to evidence, stored before any effect.

    Parameters
    ----------
    id
        Made from the evidence and the answer: the same ones give the same decision.
    pipeline, at
        Whose, and when, UTC.
    fired
        Whether an update is due.
    update
        The kind of update asked for; None leaves it to the pipeline.
    reason
        Why, or why not, in words.
    evidence
        What was found.
    attempts
        How often a run was asked for.
    dispatched_at
        When the last one was.
    claimed_by
        The run that works on it, or did.
    outcome
        How it ended; None while it has not, and always where it did not fire.
    """

    id: str
    pipeline: str
    at: datetime
    fired: bool
    update: UpdateKind | None
    reason: str
    evidence: Evidence
    attempts: int = 0
    dispatched_at: datetime | None = None
    claimed_by: str | None = None
    outcome: Outcome | None = None

    @property
    def open(self) -> bool:
        """Whether it asked for an update that has not ended."""
        return self.fired and self.outcome is None


def decision_of(evidence: Evidence, answer: TriggerAnswer) -> Decision:
    """Make the decision, with its id.

    Parameters
    ----------
    evidence
        What was found.
    answer
        What the triggers said to it.
    """
    text = msgspec.json.encode((evidence, answer), order="deterministic")
    return Decision(
        id=sha256(text).hexdigest()[:_ID_LENGTH],
        pipeline=evidence.pipeline,
        at=evidence.at,
        fired=answer.fired,
        update=answer.update,
        reason=answer.reason,
        evidence=evidence,
    )
