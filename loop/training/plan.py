"""The plan of an update, and its recipe: which examples, from which state, by which code."""

from datetime import datetime

import msgspec
from msgspec import UNSET

from headwater.learners.wrap import adapter_of
from headwater.loop.binding import Bound
from headwater.loop.declaring.changes import check_continues
from headwater.loop.declaring.edit_plan import may_begin_line
from headwater.loop.declaring.learner_code import learner_code
from headwater.registry.restore import library_versions
from headwater.registry.version import Version
from headwater.spec.data.feature import bare
from headwater.spec.duration import Duration, duration
from headwater.spec.errors import ChangedError, few
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import OffsetRange, Recipe
from headwater.spec.updating.update import Stateless, Subsample

__all__ = ["UpdatePlan", "check_update", "plan_update", "planned", "recipe_of"]


class UpdatePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of an update.

    Parameters
    ----------
    parent
        The version to fine-tune; None starts from scratch.
    window, subsample
        Which examples a start from scratch learns.
    reason
        Why, in words.
    """

    parent: Version | None
    window: Duration | None = None
    subsample: Subsample | None = None
    reason: str


def plan_update(
    pipeline: Pipeline, champion: Version | None, now: datetime, *, from_scratch: bool = False
) -> UpdatePlan:
    """Decide whether an update starts from scratch or from the champion. Pure.

    Parameters
    ----------
    pipeline
        Declares the update.
    champion
        The version that serves, if there is one.
    now
        The present, by the pipeline's clock.
    from_scratch
        Whether the user asks for a fresh start.
    """
    update = pipeline.update
    if isinstance(update, Stateless):
        return UpdatePlan(
            parent=None, window=update.window, subsample=update.subsample, reason="stateless update"
        )
    reset = update.reset
    if champion is None:
        return UpdatePlan(parent=None, window=update.window, reason="first version")
    if from_scratch:
        start = reset or update
        return UpdatePlan(
            parent=None,
            window=start.window,
            subsample=None if reset is None else reset.subsample,
            reason="fresh start asked for",
        )
    if reset is not None and now - champion.line_started_at >= duration(reset.every):
        return UpdatePlan(
            parent=None,
            window=reset.window,
            subsample=reset.subsample,
            reason=f"reset, due every {reset.every}",
        )
    return UpdatePlan(parent=champion, reason=f"fine-tunes version {champion.number}")


def check_update(bound: Bound, *, from_scratch: bool = False) -> None:
    """Check that an update may continue from the champion, before anything is done.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    from_scratch
        Whether it starts from scratch, whatever the pipeline says.

    Raises
    ------
    ChangedError
        If the learner or the features are not those of the version to fine-tune.
    """
    champion = bound.registry.champion()
    stop = 0 if champion is None else champion.examples.stop
    planned(bound, champion, stop, bound.clock.now(), from_scratch=from_scratch)


def planned(
    bound: Bound, champion: Version | None, stop: int, at: datetime, *, from_scratch: bool = False
) -> tuple[UpdatePlan, Recipe]:
    """Plan an update on the examples below an offset, and write its recipe.

    Where the declaration does not fit the champion, it begins a new line if somebody said that it may.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    champion
        The version that serves, if there is one.
    stop
        The offset.
    at
        When the update counts as made: windows are counted back from it.
    from_scratch
        Whether it starts from scratch, whatever the pipeline says.

    Raises
    ------
    ChangedError
        If it would continue from a version of another learner or other features.
    DeclarationError
        If the code that makes the model cannot be kept.
    """
    plan = plan_update(bound.pipeline, champion, at, from_scratch=from_scratch)
    try:
        return plan, recipe_of(bound, plan, stop, at)
    except ChangedError as error:
        if plan.parent is None or not may_begin_line(bound):
            raise
        plan = plan_update(bound.pipeline, champion, at, from_scratch=True)
        plan = msgspec.structs.replace(plan, reason=f"a new line: {few(error.differences, 3)}")
        return plan, recipe_of(bound, plan, stop, at)


def recipe_of(bound: Bound, plan: UpdatePlan, stop: int, at: datetime) -> Recipe:
    """Write the recipe of a plan on the examples below an offset; a window is counted back from `at`.

    Raises
    ------
    ChangedError
        If it would continue from a version of another learner or other features.
    """
    pipeline, log = bound.pipeline, bound.log
    if plan.parent is not None:
        start = min(plan.parent.examples.stop, stop)
    elif plan.window is not None:
        start = min(log.offset_at(at - duration(plan.window)), stop)
    else:
        start = 0
    examples = OffsetRange(start, stop)
    adapter = adapter_of(pipeline.model())
    recipe = Recipe(
        pipeline=pipeline.name,
        task=pipeline.task,
        update="stateless" if plan.parent is None else "stateful",
        parent=plan.parent.number if plan.parent else None,
        parent_digest=plan.parent.digest if plan.parent else None,
        examples=examples,
        exclusions=tuple(
            span
            for span in bound.registry.quarantine.ranges()
            if span.start < stop and span.stop > start
        ),
        subsample=plan.subsample,
        revisions=pipeline.label.revision,
        batch_rows=pipeline.batch_rows or bound.capabilities.batch_rows,
        passes=pipeline.passes,
        seed=pipeline.seed,
        threads=pipeline.threads,
        learner=learner_code(pipeline, adapter),
        features=tuple(map(bare, pipeline.features)),
        libraries=library_versions(adapter),
        classes=UNSET if bound.capabilities.open_labels else pipeline.label.known_classes or UNSET,
    )
    if plan.parent is not None:
        check_continues(bound, plan.parent, recipe)
    return recipe
