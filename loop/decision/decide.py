"""Watch a pipeline: gather evidence, let the triggers answer, and store the decision."""

import msgspec

from headwater.infra.store.lease import acquire, release
from headwater.infra.store.storage import Storage
from headwater.loop.binding import Bound
from headwater.loop.decision.rehearse import rehearse
from headwater.monitoring.evidence import DecisionHistory, EvidenceFrames, gather
from headwater.monitoring.report import report_html
from headwater.spec.updating.decision import Decision, decision_of
from headwater.spec.updating.evidence import REHEARSALS, Evidence, Rehearsal
from headwater.spec.updating.trigger import decide as answer

__all__ = ["decide"]


def decide(bound: Bound) -> Decision:
    """Decide whether an update is due. The decision is stored, fired or not, before anything is done.

    Evidently's report is kept where something needs somebody, or an update is due.

    Parameters
    ----------
    bound
        The pipeline with its stores; collected, so that labels are where they belong.

    Raises
    ------
    BusyError
        If another process decides for this pipeline.
    ChangedError
        If the declaration differs from what is recorded.
    IdentityError, TableError, StorageError
        If a store belongs to another log, does not hold what it should, or is away; no decision is made
        then.
    """
    bound.check()
    pipeline = bound.pipeline
    bound.log.agree()
    lease = acquire(bound.database, bound.clock, f"decide/{pipeline.name}")
    try:
        now = bound.clock.now()
        unended = bound.decisions.unended()
        last = next((d.evidence for d in bound.decisions.newest(1)), None)
        evidence, shown = gather(
            pipeline,
            bound.log,
            bound.registry,
            now,
            DecisionHistory(
                fired=bound.decisions.fired_since(now - pipeline.pace.horizon),
                open=unended[0].id if unended else None,
                last=last,
            ),
        )
        if shown is not None:
            rehearsal = rehearse(bound, evidence, shown.mature, last)
            before = _rehearsed(last, evidence)
            evidence = msgspec.structs.replace(evidence, rehearsal=rehearsal, rehearsed=before)
        answered = answer(pipeline.triggers, pipeline.pace, evidence)
        if pipeline.monitoring.report and (answered.fired or evidence.verdict == "act"):
            evidence = _reported(bound, evidence, shown, last)
        decision = decision_of(evidence, answered)
        bound.decisions.store(decision)
    finally:
        release(bound.database, lease)
    return decision


def _rehearsed(last: Evidence | None, evidence: Evidence) -> tuple[Rehearsal, ...]:
    """Give the rehearsals before the newest one, as far as they were of the same champion."""
    if last is None or last.champion != evidence.champion:
        return ()
    if last.mature == evidence.mature or last.rehearsal is None:
        return last.rehearsed
    return (*last.rehearsed, last.rehearsal)[1 - REHEARSALS :]


def _reported(
    bound: Bound, evidence: Evidence, shown: EvidenceFrames | None, last: Evidence | None
) -> Evidence:
    if shown is None:
        return evidence
    if last is not None and last.report is not None and _same_window(last, evidence):
        return msgspec.structs.replace(evidence, report=last.report)
    if bound.pipeline.pace.refuses(evidence):
        return evidence  # it was shown when it fired, and will be again
    page = report_html(shown.reference, shown.current, bound.pipeline.features)
    if page is None:
        return evidence
    file = f"{evidence.at:%Y%m%dT%H%M%SZ}.html"
    bound.log.archive.claim.take()
    address = Storage(bound.settings).write(page, "reports", bound.pipeline.name, file)
    return msgspec.structs.replace(evidence, report=address)


def _same_window(last: Evidence, evidence: Evidence) -> bool:
    return (last.champion, last.current) == (evidence.champion, evidence.current)
