"""Decide on updates: gather evidence, let the triggers answer, and store the decision."""

from datetime import datetime

import msgspec

from headwater.infra.store.lease import holding
from headwater.infra.store.open_storage import open_storage
from headwater.loop.binding import Bound
from headwater.loop.decision.rehearse import rehearse
from headwater.loop.training.parent_state import learned_state
from headwater.monitoring.evidence import DecisionHistory, EvidenceFrames, gather
from headwater.monitoring.report import report_html
from headwater.spec.errors import DigestError
from headwater.spec.updating.decision import Decision, decision_of
from headwater.spec.updating.evidence import REHEARSALS, Evidence, Rehearsal
from headwater.spec.updating.trigger import decide as answer

__all__ = ["decide"]


def decide(bound: Bound) -> Decision:
    """Decide whether an update is due, and store the decision, fired or not, before any effect.

    The call writes Evidently's report if a change needs somebody, or an update is due.

    Parameters
    ----------
    bound
        The pipeline with its stores; collected, so that labels have joined their predictions.

    Raises
    ------
    BusyError
        If another process decides for this pipeline.
    ChangedError
        If the declaration differs from the records.
    IdentityError, TableError, StorageError
        If a store belongs to another log, is damaged, or is away; no decision is made then.
    """
    bound.check()
    pipeline = bound.pipeline
    bound.log.agree()
    with holding(bound.database, bound.clock, f"decide/{pipeline.name}"):
        now = bound.clock.now()
        unended = bound.decisions.unended()
        last = next((d.evidence for d in bound.decisions.newest(1)), None)
        history = DecisionHistory(
            fired=bound.decisions.fired_since(now - pipeline.pace.horizon),
            open=unended[0].id if unended else None,
            last=last,
        )
        evidence, frames = _gather(bound, now, history)
        if frames is not None:
            rehearsal = rehearse(bound, evidence, frames.mature, last)
            earlier = _rehearsed(last, evidence)
            evidence = msgspec.structs.replace(evidence, rehearsal=rehearsal, rehearsed=earlier)
        trigger_answer = answer(pipeline.triggers, pipeline.pace, evidence)
        if pipeline.monitoring.report and (trigger_answer.fired or evidence.verdict == "act"):
            evidence = _reported(bound, evidence, frames, last)
        decision = decision_of(evidence, trigger_answer)
        bound.decisions.store(decision)
    return decision


def _gather(
    bound: Bound, now: datetime, history: DecisionHistory
) -> tuple[Evidence, EvidenceFrames | None]:
    """Gather evidence; a champion whose state is damaged is folded again first."""
    try:
        return gather(bound.pipeline, bound.log, bound.registry, now, history)
    except DigestError:
        champion = bound.registry.champion()
        if champion is None:
            raise
        learned_state(bound, champion)
    return gather(bound.pipeline, bound.log, bound.registry, now, history)


def _rehearsed(last: Evidence | None, evidence: Evidence) -> tuple[Rehearsal, ...]:
    """Return the rehearsals before the newest one, if they were of the same champion."""
    if last is None or last.champion != evidence.champion:
        return ()
    if last.mature == evidence.mature or last.rehearsal is None:
        return last.rehearsed
    return (*last.rehearsed, last.rehearsal)[1 - REHEARSALS :]


def _reported(
    bound: Bound, evidence: Evidence, frames: EvidenceFrames | None, last: Evidence | None
) -> Evidence:
    if frames is None:
        return evidence
    if last is not None and last.report is not None and _same_window(last, evidence):
        return msgspec.structs.replace(evidence, report=last.report)
    if bound.pipeline.pace.refuses(evidence):
        return evidence  # the report was written when it fired, and will be again
    page = report_html(frames.reference, frames.current, bound.pipeline.features)
    if page is None:
        return evidence
    file = f"{evidence.at:%Y%m%dT%H%M%SZ}.html"
    bound.log.archive.claim.take()
    address = open_storage(bound.settings).write(page, "reports", bound.pipeline.name, file)
    return msgspec.structs.replace(evidence, report=address)


def _same_window(last: Evidence, evidence: Evidence) -> bool:
    return (last.champion, last.current) == (evidence.champion, evidence.current)
