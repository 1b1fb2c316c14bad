"""An update: choose the examples, fold them, publish the version, promote it."""

import inspect
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import msgspec

from headwater.infra.commit_points import reached
from headwater.infra.store.audit import check_note
from headwater.infra.store.lease import Lease, holding
from headwater.learners.cautions import cautions_of_state
from headwater.learners.learner import Learner
from headwater.learners.parameters import parameters_of
from headwater.learners.wrap import Adapter, adapter_of
from headwater.loop.binding import Bound
from headwater.loop.changes import check_continues
from headwater.loop.training.evaluate import served_scores
from headwater.loop.training.fold import fold
from headwater.registry.restore import library_versions
from headwater.registry.version import Candidate, Version
from headwater.spec.data.feature import bare
from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError, NotEnoughError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import LearnerCode, OffsetRange, Recipe
from headwater.spec.updating.update import Stateless, Subsample

__all__ = [
    "UpdatePlan",
    "UpdateResult",
    "check_update",
    "learn",
    "plan_update",
    "recipe_of",
    "served_since",
    "train",
    "trainer",
    "warned",
]


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


class UpdateResult(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an update.

    Parameters
    ----------
    version
        The version that it made; None if there was nothing to learn.
    promoted
        Whether that version is champion now.
    reason
        Why the update did what it did, in words.
    served
        Metrics of the predictions served since the champion's last example.
    warnings
        Why versions will not rebuild, if they will not.
    """

    version: Version | None
    promoted: bool
    reason: str
    served: dict[str, float]
    warnings: tuple[str, ...] = ()


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


def train(bound: Bound, *, by: str = "headwater train", from_scratch: bool = False) -> UpdateResult:
    """Update a pipeline on its collected examples: learn, register, and promote if the pipeline says so.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    by
        Who asks, for the record.
    from_scratch
        Start a stateful line anew.

    Raises
    ------
    DeclarationError
        If the code that makes the model cannot be kept.
    NotEnoughError
        If a start from scratch finds no examples.
    ChangedError
        If the declaration differs from the records, or from the recipe of the version to fine-tune.
    BusyError, FencedError
        If another trainer works, or took over: then nothing is published.
    NonFiniteError, SchemaError
        If an example cannot be learned: then nothing is published.
    DigestError, TableError, StorageError
        If a store does not hold what it should, or is away.
    """
    check_note(by)
    with trainer(bound) as lease:
        return _update(bound, lease, by, from_scratch=from_scratch)


@contextmanager
def trainer(bound: Bound) -> Iterator[Lease]:
    """Hold the lease of the pipeline's one trainer, and tidy up after a killed one.

    Raises
    ------
    IdentityError
        If a store belongs to another log; nothing is tidied up then.
    BusyError
        If another trainer works.
    """
    bound.check()
    with holding(bound.database, bound.clock, f"train/{bound.pipeline.name}") as lease:
        bound.registry.store.close_leftovers()
        bound.registry.heed_aliases()
        yield lease


def _update(bound: Bound, lease: Lease, by: str, *, from_scratch: bool) -> UpdateResult:
    bound.log.agree(fresh=from_scratch)
    champion = bound.registry.champion()
    plan = plan_update(bound.pipeline, champion, bound.clock.now(), from_scratch=from_scratch)
    recipe = recipe_of(bound, plan, bound.log.stop(), bound.clock.now())
    served = served_since(bound, champion, recipe.examples.stop)
    if not len(recipe.examples):
        if plan.parent is None:
            raise NotEnoughError(
                f"pipeline {bound.pipeline.name!r} has no examples to learn",
                hint="record predictions and labels, then run headwater collect",
            )
        return UpdateResult(
            version=None,
            promoted=False,
            reason="no new examples since the champion",
            served=served,
            warnings=warned(bound),
        )
    learner, candidate = learn(bound, recipe, served)
    version = bound.registry.publish(candidate, lease)
    promoted = bound.pipeline.promotion == "always"
    if promoted:
        bound.registry.promote(version.number, by=by, reason=plan.reason, lease=lease)
    else:
        bound.registry.challenge(version)
    return UpdateResult(
        version=version,
        promoted=promoted,
        reason=plan.reason,
        served=served,
        warnings=warned(bound, learner),
    )


def warned(bound: Bound, learner: Learner | None = None) -> tuple[str, ...]:
    """List the pipeline's warnings, and issue those that only a learned state shows.

    Parameters
    ----------
    bound
        The pipeline with its stores, which has issued the warnings on its declaration.
    learner
        The learned state, if there is one.
    """
    issued = tuple(map(str, bound.cautions))
    of_state = () if learner is None else cautions_of_state(bound.pipeline, learner)
    new = [caution for caution in of_state if str(caution) not in issued]
    for caution in new:
        warnings.warn(caution, stacklevel=3)
    return (*issued, *map(str, new))


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
            for span in bound.registry.championship.quarantined()
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


def learn(
    bound: Bound, recipe: Recipe, served: dict[str, float], decision: str | None = None
) -> tuple[Learner, Candidate]:
    """Fold a recipe, from its parent's state if it has one.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    recipe
        The recipe.
    served
        Metrics of the predictions served since the champion's last example, stored with the candidate.
    decision
        The decision that asked for it.

    Raises
    ------
    NonFiniteError, SchemaError
        If an example cannot be learned.
    NotFoundError, DigestError, TableError, StorageError
        If the parent or the examples are damaged or away.
    """
    store = bound.registry.store
    parent = None if recipe.parent is None else store.get(recipe.parent)
    base = None if parent is None else store.learner(parent, bound.pipeline.model)
    reached("train.before_learn")
    started_s = time.process_time()
    learner, learned = fold(recipe, bound.log, base, bound.pipeline.model)
    train_cpu_s = time.process_time() - started_s
    reached("train.after_learn")
    now = bound.clock.now()
    candidate = Candidate(
        recipe=recipe.to_json(),
        state=learner.dump(),
        digest=learner.digest(),
        made_at=now,
        line_started_at=now if parent is None else parent.line_started_at,
        learned=learned,
        train_cpu_s=train_cpu_s,
        metrics={f"served_{name}": value for name, value in served.items()},
        decision=decision,
    )
    return learner, candidate


def served_since(bound: Bound, champion: Version | None, stop: int) -> dict[str, float]:
    """Score the predictions served on the examples after the champion's, below an offset."""
    if champion is None or champion.examples.stop >= stop:
        return {}
    columns = ("role", "output", "label")
    return served_scores(bound.pipeline, bound.log.examples(champion.examples.stop, stop, columns))
