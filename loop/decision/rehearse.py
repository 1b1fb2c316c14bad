"""Rehearse an update: say what it would have changed, had it been made a window ago."""

from collections.abc import Sequence

import polars as pl

from headwater.loop.binding import Bound
from headwater.loop.training.fold import fold
from headwater.loop.training.update import plan_update, recipe_of
from headwater.monitoring.measure.scores import as_logged, gained
from headwater.spec.updating.evidence import Evidence, Rehearsal
from headwater.spec.updating.trigger import Trigger, leaves
from headwater.spec.updating.triggers.performance import Performance
from headwater.spec.updating.update import UpdateKind

__all__ = ["rehearse"]


def rehearse(
    bound: Bound, evidence: Evidence, mature: pl.DataFrame, last: Evidence | None = None
) -> Rehearsal | None:
    """Learn what was known as the newest mature window began, and score it on that window.

    Champion and rehearsed update are compared on the same predictions, none of which either has learned:
    so neither a hard week nor a shift that no update could follow counts. Nothing is published.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    evidence
        Says which window, and who is champion.
    mature
        That window: ``features`` (a struct), ``output`` as served, ``label``; oldest first.
    last
        What was found before: one rehearsal a window is enough.

    Returns
    -------
    Rehearsal or None
        None where no trigger asks for one, no window began after the champion did, or nothing was new.

    Raises
    ------
    HeadwaterError
        As :func:`headwater.loop.training.fold.fold` does.
    """
    pipeline, window, since = bound.pipeline, evidence.mature, evidence.champion_since
    wanted = _asked_for(pipeline.triggers)
    if not wanted or window is None or since is None or window.start <= since:
        return None
    if last is not None and (last.champion, last.mature) == (evidence.champion, window):
        return last.rehearsal
    if mature.height < pipeline.monitoring.least:
        return None
    champion = bound.registry.champion()
    plan = plan_update(pipeline, champion, window.start, from_scratch="stateless" in wanted)
    recipe = recipe_of(bound, plan, bound.log.offset_at(window.start), window.start)
    if not len(recipe.examples):
        return None
    base = None if plan.parent is None else bound.registry.store.learner(plan.parent, pipeline.model)
    learner, learned = fold(recipe, bound.log, base, pipeline.model)
    new = as_logged(learner.predict(mature["features"].struct.unnest()))
    found = gained(pipeline.task, pipeline.judged_by[0], new, mature["output"], mature["label"])
    if found is None:
        return None
    return Rehearsal(update=recipe.update, examples=learned, gain=found[0], error=found[1])


def _asked_for(triggers: Sequence[Trigger]) -> list[UpdateKind | None]:
    """Give the kinds of update that the triggers which go by a rehearsal ask for."""
    return [
        leaf.update or trigger.update
        for trigger in triggers
        for leaf in leaves([trigger])
        if isinstance(leaf, Performance) and leaf.gain is not None
    ]
