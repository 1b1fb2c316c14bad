"""The one idea: a state is the fold of a learner over the examples that its recipe names."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from headwater.features.log import FeatureLog
from headwater.learners.learner import Learner
from headwater.loop.assemble import batches, classes
from headwater.registry.restore import fresh
from headwater.spec.recipe import Recipe

__all__ = ["fold"]


def fold(
    recipe: Recipe,
    log: FeatureLog,
    base: Learner | None = None,
    factory: Callable[[], object] | None = None,
) -> tuple[Learner, int]:
    """Learn a recipe's examples, in offset order, from its base.

    Parameters
    ----------
    recipe
        What to learn, and how.
    log
        Has the examples.
    base
        The parent's learner, which is changed; None starts from the unfitted estimator.
    factory
        Makes the unfitted estimator, where the caller has the code; from the kept code otherwise.

    Returns
    -------
    learner : Learner
        The learned state.
    learned : int
        How many examples were learned, counting each pass.

    Raises
    ------
    NonFiniteError, SchemaError
        If an example cannot be learned.
    NotFoundError, TableError, StorageError
        If the examples cannot be read.
    """
    learned = 0
    with _computing(recipe):
        learner = base or fresh(recipe, factory)
        learner.expect_classes(classes(log, recipe))
        for _ in range(recipe.passes):
            for features, labels in batches(log, recipe):
                learner.learn(features, labels)
                learned += len(labels)
    return learner, learned


@contextmanager
def _computing(recipe: Recipe) -> Iterator[None]:
    """Seed the global generators, which unseeded estimators draw from, and limit the threads."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - comes with scikit-learn

    before, before_np = random.getstate(), np.random.get_state()
    random.seed(recipe.seed)
    np.random.seed(recipe.seed % 2**32)
    try:
        with threadpool_limits(recipe.threads):
            yield
    finally:
        random.setstate(before)
        np.random.set_state(before_np)
