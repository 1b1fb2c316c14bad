"""Rehearse an update: measure what it would have gained, had it been made a window ago."""

from collections.abc import Sequence

import polars as pl

from headwater.loop.binding import Bound
from headwater.loop.training.fold import fold
from headwater.loop.training.parent_state import learned_state
from headwater.loop.training.plan import planned
from headwater.monitoring.measure.scores import as_logged, gained
from headwater.spec.updating.evidence import Evidence, Rehearsal
from headwater.spec.updating.trigger import Trigger, leaves
from headwater.spec.updating.triggers.performance import Performance
from headwater.spec.updating.update import UpdateKind

__all__ = ["rehearse"]


def rehearse(
    bound: Bound, evidence: Evidence, mature: pl.DataFrame, last: Evidence | None = None
) -> Rehearsal | None:
    """Learn the examples known when the newest mature window began, and score on that window.

    The champion and the rehearsed update are compared on the same predictions, which neither has
    learned. So neither a hard week nor a shift that no update could follow counts. Nothing is published.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    evidence
        Has the window and the champion.
    mature
        The window: ``features`` (a struct), ``output`` as served, ``label``; oldest first.
    last
        The evidence before, whose rehearsal holds for the same window.

    Returns
    -------
    Rehearsal or None
        None if no trigger asks for one, no window began after the champion did, or nothing was new.

    Raises
    ------
    HeadwaterError
        As :func:`headwater.loop.training.fold.fold` does.
    """
    pipeline, window, since = bound.pipeline, evidence.mature, evidence.champion_since
    kinds = _kinds_of_update(pipeline.triggers)
    if not kinds or window is None or since is None or window.start <= since:
        return None
    if last is not None and (last.champion, last.mature) == (evidence.champion, window):
        return last.rehearsal
    if mature.height < pipeline.monitoring.least:
        return None
    champion = bound.registry.champion()
    stop, scratch = bound.log.offset_at(window.start), "stateless" in kinds
    plan, recipe = planned(bound, champion, stop, window.start, from_scratch=scratch)
    if not len(recipe.examples):
        return None
    base = None if plan.parent is None else learned_state(bound, plan.parent)
    learner, learned = fold(recipe, bound.log, base, pipeline.model)
    outputs = as_logged(learner.predict(mature["features"].struct.unnest()))
    gain = gained(pipeline.task, pipeline.judged_by[0], outputs, mature["output"], mature["label"])
    if gain is None:
        return None
    return Rehearsal(update=recipe.update, examples=learned, gain=gain[0], error=gain[1])


def _kinds_of_update(triggers: Sequence[Trigger]) -> list[UpdateKind | None]:
    """List the kinds of update for which triggers ask a rehearsal."""
    return [
        leaf.update or trigger.update
        for trigger in triggers
        for leaf in leaves([trigger])
        if isinstance(leaf, Performance) and leaf.gain is not None
    ]
