"""The plan of an update, and its recipe: which examples, from which state, by which code."""

import inspect
import sys
from datetime import datetime

import msgspec
from msgspec import UNSET

from headwater.learners.parameters import parameters_of
from headwater.learners.wrap import Adapter, adapter_of
from headwater.loop.binding import Bound
from headwater.loop.changes import check_continues
from headwater.registry.restore import library_versions
from headwater.registry.version import Version
from headwater.spec.data.feature import bare
from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import LearnerCode, OffsetRange, Recipe
from headwater.spec.updating.update import Stateless, Subsample

__all__ = ["UpdatePlan", "check_update", "plan_update", "recipe_of"]


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
    champion, now = bound.registry.champion(), bound.clock.now()
    plan = plan_update(bound.pipeline, champion, now, from_scratch=from_scratch)
    if plan.parent is not None:
        recipe_of(bound, plan, plan.parent.examples.stop, now)


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
        learner=_code_of(pipeline, adapter),
        features=tuple(map(bare, pipeline.features)),
        libraries=library_versions(adapter),
        classes=UNSET if bound.capabilities.open_labels else pipeline.label.known_classes or UNSET,
    )
    if plan.parent is not None:
        check_continues(bound, plan.parent, recipe)
    return recipe


def _code_of(pipeline: Pipeline, adapter: Adapter) -> LearnerCode:
    """Take the text of the factory's module, if it can run again elsewhere."""
    factory = pipeline.model
    module = sys.modules.get(factory.__module__)
    hint = f"put {factory.__name__} and the pipeline into a file of their own, and import or name that"
    if factory.__module__ == "__main__":
        raise DeclarationError(
            f"the model of pipeline {pipeline.name!r} is made in a script or a notebook: "
            "a rebuild would run all of it again",
            hint,
        )
    try:
        source = inspect.getsource(module) if module is not None else ""
    except (OSError, TypeError):
        source = ""
    if not source or getattr(module, factory.__name__, None) is None:
        raise DeclarationError(
            f"the model of pipeline {pipeline.name!r} cannot be kept: the text of module "
            f"{factory.__module__!r} is not there, or has no {factory.__name__}",
            hint,
        )
    return LearnerCode(
        module=factory.__module__,
        function=factory.__name__,
        source=source,
        adapter=adapter,
        parameters=parameters_of(factory),
    )
