"""Events that headwater emits to Prefect on a pipeline's resource: hints, while rows are the truth."""

from collections.abc import Iterable
from uuid import NAMESPACE_URL, uuid5

from prefect.events import emit_event

from headwater.loop.training.update import UpdateResult
from headwater.spec.rulings import AppearedClass
from headwater.spec.updating.decision import Decision

__all__ = [
    "CLASS_APPEARED",
    "DRIFT_DETECTED",
    "PERFORMANCE_DROPPED",
    "UPDATE_REQUESTED",
    "VERSION_PROMOTED",
    "resource",
    "tell_appeared",
    "tell_decided",
    "tell_promoted",
]

CLASS_APPEARED = "headwater.class.appeared"
DRIFT_DETECTED = "headwater.drift.detected"
PERFORMANCE_DROPPED = "headwater.performance.dropped"
UPDATE_REQUESTED = "headwater.update.requested"
VERSION_PROMOTED = "headwater.version.promoted"


def resource(pipeline: str) -> dict[str, str]:
    """Return the resource of a pipeline's events.

    >>> resource("flights")["prefect.resource.id"]
    'headwater.pipeline.flights'
    """
    return {
        "prefect.resource.id": f"headwater.pipeline.{pipeline}",
        "prefect.resource.name": pipeline,
    }


def tell_decided(decision: Decision) -> None:
    """Emit the events of a decision: drift needs attention, performance fell, the decision fired.

    Each event has an id made from the decision's, and the decision's time, so a repeated event is the
    same event.
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


def tell_appeared(classes: Iterable[AppearedClass]) -> None:
    """Emit that classes came which are not declared; a repeated event is the same event."""
    for new in classes:
        payload = {"class": new.name, "held": new.held}
        id_ = uuid5(NAMESPACE_URL, f"{CLASS_APPEARED}/{new.pipeline}/{new.name}")
        emit_event(
            CLASS_APPEARED,
            resource(new.pipeline),
            occurred=new.appeared_at,
            payload=payload,
            id=id_,
        )


def tell_promoted(updated: UpdateResult) -> None:
    """Emit that a version became champion, if one did."""
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
