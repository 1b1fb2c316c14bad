"""The one idea: a state is the fold of a learner over the examples that its recipe names."""

from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from typing import Any

from headwater.features.read.log_reader import LogReader
from headwater.learners.learner import Learner
from headwater.learners.process_state import SeededGenerators
from headwater.loop.training.assemble import batches, classes
from headwater.loop.training.suspects import find_suspects
from headwater.registry.restore import fresh
from headwater.spec.errors import NonFiniteError
from headwater.spec.recipe import Recipe

__all__ = ["Computing", "fold"]

_NAMED = 5


def fold(
    recipe: Recipe,
    log: LogReader,
    base: Learner | None = None,
    factory: Callable[[], object] | None = None,
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

    Returns
    -------
    learner : Learner
        The learned state.
    learned : int
        How many examples were learned, counting each pass.

    Raises
    ------
    NonFiniteError, SchemaError
        If an example cannot be learned; the text names offsets and ids.
    NotFoundError, TableError, StorageError
        If the examples cannot be read.
    """
    learned = 0
    if base is None:
        fresh(recipe, factory)  # loads its libraries: limits hold for threads of those that are loaded
    with Computing(recipe.seed, recipe.threads):
        learner = base or fresh(recipe, factory)
        learner.expect_classes(classes(log, recipe))
        for _ in range(recipe.passes):
            for features, labels in batches(log, recipe):
                try:
                    learner.learn(features, labels)
                except NonFiniteError as error:
                    raise _with_offsets(error, log, recipe) from error
                learned += len(labels)
    return learner, learned


def _with_offsets(error: NonFiniteError, log: LogReader, recipe: Recipe) -> NonFiniteError:
    """Name the examples that cannot be learned, if it is for their numbers."""
    found = list(islice(find_suspects(log, recipe.task, recipe.examples, far_out=False), _NAMED + 1))
    if not found:
        return error
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
