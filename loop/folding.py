"""A fold that goes on as examples come: the same state, at every offset, as one fold up to there."""

import time

from msgspec.structs import replace

from headwater.features.log import FeatureLog
from headwater.learners.learner import Learner
from headwater.loop.assemble import batches
from headwater.loop.fold import Computing
from headwater.spec.errors import DeclarationError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import OffsetRange, Recipe

__all__ = ["Folding", "check_folds"]


def check_folds(pipeline: Pipeline, learner: Learner) -> None:
    """Refuse a pipeline that cannot learn example by example.

    Raises
    ------
    DeclarationError
        If its learner is not stateful, takes all examples at once, or must know all classes ahead.
    """
    can = learner.capabilities
    wrong = None
    if not can.stateful:
        wrong = "its learner can only be fitted from scratch", "take an estimator with partial_fit"
    elif (pipeline.batch_rows or can.batch_rows) is None:
        wrong = "its learner takes an update's examples all at once", "write batch_rows=1_000, say"
    elif pipeline.task == "multiclass" and not can.open_labels:
        wrong = "its learner must know all classes ahead", "take a River estimator"
    elif pipeline.passes != 1:
        wrong = f"it goes over its examples {pipeline.passes} times", "write passes=1"
    if wrong is not None:
        raise DeclarationError(
            f"pipeline {pipeline.name!r} has learn='each label', and {wrong[0]}",
            hint=f"{wrong[1]}, or write learn='on schedule'",
        )


class Folding:
    """Learns the examples of a log as they come.

    Made by the keeper, from the champion; lives until another version becomes champion.

    Parameters
    ----------
    recipe
        A stateful recipe; its range says where to start, and may be empty.
    log
        Has the examples.
    learner
        The parent's state, which is changed.

    Attributes
    ----------
    learned, train_cpu_s
        How many examples were learned here, and the CPU seconds that took.
    """

    def __init__(self, recipe: Recipe, log: FeatureLog, learner: Learner) -> None:
        self.learner = learner
        self.learned = 0
        self.train_cpu_s = 0.0
        self._recipe = recipe
        self._log = log
        self._learned_to = recipe.examples.start
        self._computing = Computing(recipe.seed, recipe.threads)

    @property
    def learned_to(self) -> int:
        """The offset behind the last example that was learned."""
        return self._learned_to

    @property
    def recipe(self) -> Recipe:
        """What makes the present state: folded in one go it gives the same digest."""
        return self._range(self._recipe.examples.start, self._learned_to)

    def advance(self, stop: int) -> int:
        """Learn the examples below an offset; of a batch that is not full yet, none.

        Returns
        -------
        int
            How many were learned.

        Raises
        ------
        NonFiniteError, SchemaError
            If an example cannot be learned: the state is what it was before its batch.
        NotFoundError, TableError, StorageError
            If the examples cannot be read.
        """
        rows = self._recipe.batch_rows or 1
        learned, stop = 0, stop // rows * rows
        started_s = time.process_time()
        while self._learned_to < stop:
            # One batch a step: a batch that fails leaves what was learned before it.
            end = stop if rows == 1 else min(stop, (self._learned_to // rows + 1) * rows)
            with self._computing:
                for features, labels in batches(self._log, self._range(self._learned_to, end)):
                    self.learner.learn(features, labels)
                    learned += len(labels)
            self._learned_to = end
        self.learned += learned
        self.train_cpu_s += time.process_time() - started_s
        return learned

    def _range(self, start: int, stop: int) -> Recipe:
        exclusions = tuple(
            span for span in self._recipe.exclusions if span.start < stop and span.stop > start
        )
        return replace(self._recipe, examples=OffsetRange(start, stop), exclusions=exclusions)
