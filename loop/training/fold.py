"""The one idea: a state is the fold of a learner over the examples that its recipe names."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

import polars as pl

from headwater.features.read.log_reader import LogReader
from headwater.learners.learner import Learner
from headwater.learners.process_state import SeededGenerators
from headwater.loop.training.assemble import Batch, batches, classes, code_of, is_batch_free
from headwater.loop.training.guard.guarded_learner import GuardedLearner, RuinError
from headwater.loop.training.guard.learning_guard import KNOWN, LearningGuard
from headwater.loop.training.guard.suspects import find_suspects
from headwater.registry.restore import fresh
from headwater.spec.errors import (
    HeadwaterError,
    NonFiniteError,
    SchemaError,
    UnlearnableError,
    few,
)
from headwater.spec.recipe import OffsetRange, Recipe

__all__ = ["Computing", "fold", "guard_at", "jump_in_words", "unlearnable"]

_NAMED = 5
_PART = 1_024


def fold(
    recipe: Recipe,
    log: LogReader,
    base: Learner | None = None,
    factory: Callable[[], object] | None = None,
    *,
    guarded: bool = False,
) -> tuple[Learner, int]:
    """Learn a recipe's examples, in offset order, from its base.

    Parameters
    ----------
    recipe
        Names the examples, and how to learn them.
    log
        Has the examples.
    base
        The parent's learner, which is changed; None starts from the unfitted estimator.
    factory
        Makes the unfitted estimator; if it is None, the stored code does.
    guarded
        Whether examples that would ruin the state are refused, as
        :mod:`~headwater.loop.training.guard.learning_guard` has it; what is learned is the same.

    Returns
    -------
    learner : Learner
        The learned state.
    learned : int
        How many examples were learned, counting each pass.

    Raises
    ------
    NonFiniteError, SchemaError
        If an example cannot be learned, or would ruin the state; the text names offsets, and ids.
    NotFoundError, TableError, StorageError
        If the examples cannot be read.
    """
    learned = 0
    if base is None:
        fresh(recipe, factory)  # loads its libraries: limits hold for threads of those that are loaded
    with Computing(recipe.seed, recipe.threads):
        learner = base or fresh(recipe, factory)
        learner.expect_classes(classes(log, recipe))
        learns = GuardedLearner(learner, guard_at(log, recipe)) if guarded else learner
        for _ in range(recipe.passes):
            for batch in batches(log, recipe):
                try:
                    _learn(learns, batch, recipe)
                except SchemaError as error:
                    raise _with_offsets(log, recipe) or error from error
                learned += len(batch.labels)
    if isinstance(learns, GuardedLearner) and recipe.parent is not None:
        _check_jump(learns, recipe)
    return learner, learned


def guard_at(log: LogReader, recipe: Recipe) -> LearningGuard:
    """Return a guard that knows the examples before a recipe's, but for the quarantined ones."""
    start = recipe.examples.start
    guard = LearningGuard(recipe.task, pl.DataFrame(), pl.Series())
    known = log.judged(
        max(0, start - KNOWN), start, ("features", "label"), recipe.features, code_of(recipe)
    )
    if known.is_empty():
        return guard
    return guard.after(known["features"].struct.unnest(), known["label"])


def unlearnable(
    pipeline: str, span: OffsetRange, error: Exception, out: pl.Series | None
) -> UnlearnableError:
    """Return the error that names examples at fault: those that are out, or all of a span."""
    why = error.what if isinstance(error, HeadwaterError) else f"{type(error).__name__}: {error}"
    spans = [span] if out is None or not len(out) else _spans(out.to_list())
    single = len(spans) == 1 and len(spans[0]) == 1
    examples = f"example {spans[0].start}" if single else f"one of the examples {few(spans)}"
    offsets = " ".join(f"{one.start}:{one.stop}" for one in spans)
    return UnlearnableError(
        f"{examples} of {pipeline!r} cannot be learned: {why}",
        f"leave {'it' if single else 'them'} out: headwater quarantine {pipeline} {offsets}",
        span.start,
        span.stop,
    )


def jump_in_words(pipeline: str, unusual: Sequence[int], why: str) -> tuple[str, str]:
    """Return what is wrong with a state that has jumped at unusual examples, and what to do."""
    examples = f"{'example' if len(unusual) == 1 else 'examples'} {few(unusual)}"
    offsets = " ".join(f"{one.start}:{one.stop}" for one in _spans(unusual))
    return (
        f"what {pipeline!r} learned from the unusual {examples} on is not served: {why}",
        f"more examples may mend it; if they are wrong: headwater quarantine {pipeline} {offsets}",
    )


def _spans(offsets: Sequence[int]) -> list[OffsetRange]:
    """Return rising offsets as ranges."""
    spans: list[OffsetRange] = []
    for offset in offsets:
        if spans and spans[-1].stop == offset:
            spans[-1] = OffsetRange(spans[-1].start, offset + 1)
        else:
            spans.append(OffsetRange(offset, offset + 1))
    return spans


def _check_jump(learner: GuardedLearner, recipe: Recipe) -> None:
    """Refuse a state that unusual examples have made much worse."""
    unusual, why = tuple(learner.unusual), learner.jumped()
    if why is not None:
        what, hint = jump_in_words(recipe.pipeline, unusual, why)
        raise UnlearnableError(what, hint, recipe.examples.start, recipe.examples.stop)


def _learn(learner: Learner | GuardedLearner, batch: Batch, recipe: Recipe) -> None:
    """Learn a batch; under a guard in parts, if they may be, so that one example is named."""
    rows, start = len(batch.labels), 0
    guarded = isinstance(learner, GuardedLearner)
    divisible = guarded and is_batch_free(recipe) and recipe.batch_rows is not None
    most = _PART if divisible else rows
    while start < rows:
        part = slice(start, min(rows, start + most))
        features, labels, offsets = batch.features[part], batch.labels[part], batch.offsets[part]
        try:
            if isinstance(learner, GuardedLearner):
                learner.learn(features, labels, offsets)
            else:
                learner.learn(features, labels)
        except SchemaError as error:
            if not guarded:
                raise
            if divisible and part.stop - start > 1:
                most = max(1, (part.stop - start) // 2)  # closer to the one at fault
                continue
            out = offsets.gather(error.rows) if isinstance(error, RuinError) else None
            span = OffsetRange(int(offsets[0]), int(offsets[-1]) + 1)
            raise unlearnable(recipe.pipeline, span, error, out) from error
        start = part.stop


def _with_offsets(log: LogReader, recipe: Recipe) -> NonFiniteError | None:
    """Return the error that names examples whose numbers no learner takes; None if there are none."""
    found = list(islice(find_suspects(log, recipe.task, recipe.examples, far_out=False), _NAMED + 1))
    if not found:
        return None
    names = [f"{one.offset} (prediction {one.prediction_id!r}): {one.what}" for one in found[:_NAMED]]
    more = ", and more" if len(found) > _NAMED else ""
    spans = " ".join(f"{one.offset}:{one.offset + 1}" for one in found[:_NAMED])
    return NonFiniteError(
        f"examples of {recipe.pipeline!r} cannot be learned: {'; '.join(names)}{more}",
        hint=f"leave them out: headwater quarantine {recipe.pipeline} {spans}"
        + ("; headwater quarantine --find lists all" if more else ""),
    )


class Computing:
    """The conditions under which a fold computes: seeded generators, and a limit of threads.

    A fold enters it as a ``with`` block, again and again, as
    :class:`~headwater.learners.process_state.SeededGenerators` is.

    Parameters
    ----------
    seed, threads
        As in the recipe.
    """

    def __init__(self, seed: int, threads: int) -> None:
        self._threads = threads
        self._generators = SeededGenerators(seed)
        self._stack = ExitStack()

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with scikit-learn

        self._stack.enter_context(self._generators)
        self._stack.enter_context(threadpool_limits(self._threads))

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
