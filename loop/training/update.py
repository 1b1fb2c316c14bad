"""An update: plan it, fold the examples, publish the version, promote it."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from headwater.infra.commit_points import reached
from headwater.infra.store.audit import check_note
from headwater.infra.store.lease import Lease, holding
from headwater.learners.cautions import cautions_of_state
from headwater.learners.learner import Learner
from headwater.loop.binding import Bound
from headwater.loop.declaring.edit_plan import declare, end_word
from headwater.loop.training.evaluate import served_scores
from headwater.loop.training.fold import fold
from headwater.loop.training.parent_state import learned_state
from headwater.loop.training.plan import planned
from headwater.registry.mlflow_store.housekeeping import close_leftovers
from headwater.registry.version import Candidate, Version
from headwater.spec.errors import HeadwaterError, HeadwaterWarning, NotEnoughError, SchemaError
from headwater.spec.recipe import Recipe

__all__ = ["UpdateResult", "learn", "served_since", "train", "trainer", "warned"]


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

    Warns
    -----
    HeadwaterWarning
        If an alias that was moved in MLflow is refused, for whatever reason; it is put back.

    Raises
    ------
    IdentityError
        If a store belongs to another log; nothing is tidied up then.
    BusyError
        If another trainer works.
    """
    bound.check()
    with holding(bound.database, bound.clock, f"train/{bound.pipeline.name}") as lease:
        close_leftovers(bound.registry.mlflow)
        _heed_aliases(bound)
        yield lease


def _heed_aliases(bound: Bound) -> None:
    """Follow an alias that was moved in MLflow; one that is refused, and put back, stops no training."""
    try:
        bound.registry.heed_aliases()
    except HeadwaterError as error:
        what = f"the alias 'champion' that was moved in MLflow is refused: {error.what}"
        warnings.warn(HeadwaterWarning(what, error.hint), stacklevel=4)


def _update(bound: Bound, lease: Lease, by: str, *, from_scratch: bool) -> UpdateResult:
    bound.log.agree(fresh=from_scratch)
    champion = bound.registry.champion()
    stop, now = bound.log.stop(), bound.clock.now()
    plan, recipe = planned(bound, champion, stop, now, from_scratch=from_scratch)
    declare(bound, by=by)
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
        if plan.parent is None:
            end_word(bound, by)
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
        If an example cannot be learned, or would ruin the state; a service raises an alarm until an
        update learns.
    NotFoundError, DigestError, TableError, StorageError
        If the parent or the examples are damaged or away.
    """
    store = bound.registry.store
    parent = None if recipe.parent is None else store.get(recipe.parent)
    base = None if parent is None else learned_state(bound, parent)
    reached("train.before_learn")
    started_s = time.process_time()
    try:
        guarded = bound.pipeline.serving.guard
        learner, learned = fold(recipe, bound.log, base, bound.pipeline.model, guarded=guarded)
    except SchemaError as error:
        bound.registry.learning_stops.begin(error)
        raise
    bound.registry.learning_stops.end()
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
    return served_scores(bound.pipeline, bound.log.judged(champion.examples.stop, stop, columns))
