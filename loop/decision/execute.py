"""Carry out a decision, once, whatever is killed: claim it, learn, pass the gate, publish, promote."""

import msgspec

from headwater.infra.store.audit import check_note
from headwater.infra.store.lease import Lease
from headwater.learners.learner import Learner
from headwater.loop.binding import Bound
from headwater.loop.declaring.edit_plan import declare, end_word
from headwater.loop.training.gate import GateResult, held_back, judge
from headwater.loop.training.parent_state import learned_state
from headwater.loop.training.plan import UpdatePlan, check_update, planned
from headwater.loop.training.update import UpdateResult, learn, served_since, trainer, warned
from headwater.registry.decisions import Work
from headwater.registry.version import Candidate, Version
from headwater.spec.errors import FencedError, HeadwaterError, NotEnoughError, StorageError
from headwater.spec.recipe import OffsetRange, Recipe
from headwater.spec.updating.decision import Decision, Outcome

__all__ = ["carry_out"]

_COLUMNS = ("features", "label")
_PASSING = (StorageError, FencedError)  # another run carries the decision out


def carry_out(bound: Bound, id_: str, *, by: str) -> UpdateResult:
    """Carry out a decision, unless that is done.

    The first claim writes down the whole recipe. After a kill, the next run folds the same recipe, and a
    recipe is registered once. So a decision ends in one version.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    id_
        The decision.
    by
        Who works on it, for the record.

    Raises
    ------
    NotFoundError
        If there is no such decision.
    NotEnoughError
        If the decision did not fire.
    ChangedError
        If the declaration differs from records or recipes; the decision stays open.
    BusyError, FencedError
        If another trainer works, or took over: then nothing is published.
    HeadwaterError
        As :func:`headwater.loop.training.update.learn` does.
    """
    check_note(by)
    decision = bound.decisions.get(id_)
    if not decision.fired:
        raise NotEnoughError(
            f"decision {id_} did not fire: {decision.reason}",
            hint="to update without a decision: headwater train",
        )
    with trainer(bound) as lease:
        decision = bound.decisions.get(id_)  # another run may have ended it
        if decision.outcome is not None:
            return _earlier_result(bound, decision.outcome)
        declare(
            bound, by=by
        )  # if this raises, the decision stays open until the declaration is put back
        check_update(bound, from_scratch=decision.update == "stateless")
        try:
            updated = _work(bound, decision, _claim(bound, decision, by, lease), lease, by)
        except HeadwaterError as error:
            if not isinstance(error, _PASSING):
                bound.decisions.end(id_, _outcome(bound, None, f"failed: {error.what}"), lease)
            raise
        bound.decisions.end(id_, _outcome(bound, updated, updated.reason), lease)
    return updated


def _outcome(bound: Bound, updated: UpdateResult | None, reason: str) -> Outcome:
    version = updated.version if updated else None
    return Outcome(
        ended_at=bound.clock.now(),
        version=version.number if version else None,
        promoted=updated is not None and updated.promoted,
        reason=reason,
    )


def _claim(bound: Bound, decision: Decision, by: str, lease: Lease) -> Work:
    """Claim a decision; replace an earlier claim's work if its champion or examples changed."""
    fresh = _fresh_work(bound, decision)
    work = bound.decisions.claim(decision.id, fresh, by=by, lease=lease)
    recipe = work.recipe
    if recipe is None or bound.registry.store.find(recipe.id) is not None:
        return work
    poisoned = any(
        span.start < recipe.examples.stop and span.stop > recipe.examples.start
        for span in bound.registry.quarantine.ranges()
        if span not in recipe.exclusions
    )
    if work.champion == fresh.champion and not poisoned:
        return work
    return bound.decisions.claim(decision.id, fresh, by=by, lease=lease, replace=True)


def _fresh_work(bound: Bound, decision: Decision) -> Work:
    champion = bound.registry.champion()
    scratch = decision.update == "stateless"
    stop, now = bound.log.stop(), bound.clock.now()
    new_examples = stop - (champion.examples.stop if champion else 0)
    recipe_stop = stop - held_back(bound.pipeline.gate if champion else None, new_examples)
    plan, recipe = planned(bound, champion, recipe_stop, now, from_scratch=scratch)
    return Work(
        recipe=recipe if len(recipe.examples) else None,
        judged=OffsetRange(recipe_stop, stop),
        champion=champion.number if champion else None,
        reason=_reason(plan, decision),
    )


def _reason(plan: UpdatePlan, decision: Decision) -> str:
    return f"{plan.reason}; {decision.reason}"


def _work(bound: Bound, decision: Decision, work: Work, lease: Lease, by: str) -> UpdateResult:
    champion = None if work.champion is None else bound.registry.store.get(work.champion)
    served = served_since(bound, champion, work.judged.stop)
    if work.recipe is None:
        reason = f"nothing new to learn; {decision.reason}"
        return UpdateResult(
            version=None, promoted=False, reason=reason, served=served, warnings=warned(bound)
        )
    store = bound.registry.store
    version = store.find(work.recipe.id)
    if version is None:
        learner, candidate = _candidate(bound, decision, work, work.recipe, served)
        version = bound.registry.publish(candidate, lease)
    else:  # a run published it, and was killed before it ended the decision
        learner = learned_state(bound, version)
    cautions = warned(bound, learner)
    if version.refused is not None:
        promoted, reason = False, version.refused
    else:
        promoted, reason = _promote(bound, version, work, lease, by)
    return UpdateResult(
        version=version, promoted=promoted, reason=reason, served=served, warnings=cautions
    )


def _promote(bound: Bound, version: Version, work: Work, lease: Lease, by: str) -> tuple[bool, str]:
    """Make a version champion, unless somebody replaced the champion that it was to follow."""
    if bound.pipeline.promotion != "always":
        bound.registry.challenge(version)
        return False, work.reason
    if not _was_promoted(bound, version):
        reign = bound.registry.championship.reign()
        if (reign and reign.version) != work.champion:
            bound.registry.challenge(version)
            now = reign.version if reign else "none"
            return False, f"not promoted, champion {work.champion} was replaced by {now} meanwhile"
        bound.registry.promote(version.number, by=by, reason=work.reason, lease=lease)
        if version.parent is None:
            end_word(bound, by)
    return True, work.reason


def _candidate(
    bound: Bound, decision: Decision, work: Work, recipe: Recipe, served: dict[str, float]
) -> tuple[Learner, Candidate]:
    gate = bound.pipeline.gate
    learner, candidate = learn(bound, recipe, served, decision.id)
    candidate = msgspec.structs.replace(candidate, report=decision.evidence.report)
    if gate is None or work.champion is None:
        return learner, candidate
    store = bound.registry.store
    champion = learned_state(bound, store.get(work.champion))
    examples = bound.log.judged(work.judged.start, work.judged.stop, _COLUMNS)
    verdict = judge(gate, bound.pipeline.task, learner, champion, examples)
    metrics = candidate.metrics | {"gate_worse": verdict.worse, "gate_error": verdict.error}
    refused = None if verdict.passes else _refusal(verdict)
    return learner, msgspec.structs.replace(candidate, metrics=metrics, refused=refused)


def _refusal(verdict: GateResult) -> str:
    return f"refused by the gate: {verdict.reason}"


def _was_promoted(bound: Bound, version: Version) -> bool:
    """Tell whether a run that was killed afterwards has promoted the version already."""
    return any(reign.version == version.number for reign in bound.registry.championship.history())


def _earlier_result(bound: Bound, outcome: Outcome) -> UpdateResult:
    version = None if outcome.version is None else bound.registry.store.get(outcome.version)
    reason = f"done already: {outcome.reason}"
    return UpdateResult(
        version=version, promoted=outcome.promoted, reason=reason, served={}, warnings=warned(bound)
    )
