"""What headwater tells Prefect: events on a pipeline's resource. They are hints; rows are the truth."""

from uuid import NAMESPACE_URL, uuid5

from prefect.events import emit_event

from headwater.loop.training.update import UpdateResult
from headwater.spec.updating.decision import Decision

__all__ = [
    "DRIFT_DETECTED",
    "PERFORMANCE_DROPPED",
    "UPDATE_REQUESTED",
    "VERSION_PROMOTED",
    "resource",
    "tell_decided",
    "tell_promoted",
]

DRIFT_DETECTED = "headwater.drift.detected"
PERFORMANCE_DROPPED = "headwater.performance.dropped"
UPDATE_REQUESTED = "headwater.update.requested"
VERSION_PROMOTED = "headwater.version.promoted"


def resource(pipeline: str) -> dict[str, str]:
    """Give the resource on which a pipeline's events happen.

    >>> resource("flights")["prefect.resource.id"]
    'headwater.pipeline.flights'
    """
    return {
        "prefect.resource.id": f"headwater.pipeline.{pipeline}",
        "prefect.resource.name": pipeline,
    }


def tell_decided(decision: Decision) -> None:
    """Emit what a decision says: that drift needs attention, that performance fell, that it fired.

    An event of the same decision has the same id and the same time, the decision's, so that telling it
    twice is telling it once.
    """
    evidence = decision.evidence
    payload: dict[str, object] = {
        "decision": decision.id,
        "at": decision.at.isoformat(),
        "reason": decision.reason,
        "champion": evidence.champion,
    }
    if evidence.verdict == "act":
        sentences = [f.sentence for f in evidence.findings if f.verdict == "act"]
        _emit(DRIFT_DETECTED, decision, payload | {"findings": sentences})
    if evidence.changed or evidence.fell:
        scores = {s.metric: s.current for s in evidence.scores}
        _emit(PERFORMANCE_DROPPED, decision, payload | {"scores": scores})
    if decision.fired:
        _emit(UPDATE_REQUESTED, decision, payload | {"update": decision.update})


def tell_promoted(updated: UpdateResult) -> None:
    """Emit that a version became champion; nothing where none did."""
    version = updated.version
    if version is not None and updated.promoted:
        payload = {
            "version": version.number,
            "parent": version.parent,
            "digest": version.digest,
            "decision": version.decision,
            "reason": updated.reason,
        }
        id_ = uuid5(NAMESPACE_URL, f"{VERSION_PROMOTED}/{version.pipeline}/{version.number}")
        emit_event(VERSION_PROMOTED, resource(version.pipeline), payload=payload, id=id_)


def _emit(name: str, decision: Decision, payload: dict[str, object]) -> None:
    id_ = uuid5(NAMESPACE_URL, f"{name}/{decision.pipeline}/{decision.id}")
    emit_event(name, resource(decision.pipeline), occurred=decision.at, payload=payload, id=id_)
