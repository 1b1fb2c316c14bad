"""A fold that goes on as examples come; at every offset its state is that of one fold up to there."""

import time

from msgspec.structs import replace

from headwater.features.read.log_reader import LogReader
from headwater.learners.learner import Learner
from headwater.loop.training.assemble import Offsets, batches, is_batch_free, unlearned
from headwater.loop.training.fold import Computing, guard_at, jump_in_words, unlearnable
from headwater.loop.training.guard.guarded_learner import GuardedLearner, RuinError
from headwater.spec.errors import HeadwaterError, SchemaError, UnlearnableError
from headwater.spec.recipe import OffsetRange, Recipe

__all__ = ["IncrementalFold"]

_STEP = 1_024  # offsets of what is learned one by one; divides the pieces that examples are read in


class IncrementalFold:
    """Learns the examples of a log as they come.

    The keeper makes it from the champion, and drops it when another version becomes champion.

    Parameters
    ----------
    recipe
        A stateful recipe; its range says where to start, and may be empty.
    log
        Has the examples.
    learner
        The parent's state; the fold changes it.
    guarded
        Whether examples that would ruin the state are refused, as
        :mod:`~headwater.loop.training.guard.learning_guard` has it.

    Attributes
    ----------
    learned, train_cpu_s
        How many examples this fold learned, and the CPU seconds that took.
    """

    def __init__(
        self, recipe: Recipe, log: LogReader, learner: Learner, *, guarded: bool = True
    ) -> None:
        self.learner = learner
        self.learned = 0
        self.train_cpu_s = 0.0
        self._recipe = recipe
        self._log = log
        self._learned_to = recipe.examples.start
        self._any = is_batch_free(recipe)
        self._computing = Computing(recipe.seed, recipe.threads)
        self._guarded = self._guarded_learner() if guarded else None

    @property
    def learned_to(self) -> int:
        """The offset behind the last learned example."""
        return self._learned_to

    @property
    def recipe(self) -> Recipe:
        """The recipe of the present state: folded in one go, it has the same digest."""
        return self._range(self._recipe.examples.start, self._learned_to)

    def advance(self, stop: int) -> int:
        """Learn the examples below an offset; wait with a batch that is not full yet.

        Returns
        -------
        int
            How many were learned.

        Raises
        ------
        UnlearnableError
            If an example cannot be learned, or would ruin the state; the examples before it, or before
            its batch, are learned.
        NotFoundError, TableError, StorageError
            If the examples cannot be read.
        """
        learned, stop, most = 0, self.cut(stop), _STEP
        started_s = time.process_time()
        while self._learned_to < stop:
            end = min(stop, self._end(most))
            try:
                count = self._learn(end)
            except UnlearnableError as error:
                if not self._any or error.stop - error.start == 1:
                    raise
                most = max(1, (error.stop - error.start) // 2)  # closer to the one at fault
                continue
            learned += count
            self.learned += count
        self.train_cpu_s += time.process_time() - started_s
        return learned

    def jump(self) -> HeadwaterError | None:
        """Return that the state has jumped, and at which examples; None if it has not, or no more.

        See :mod:`~headwater.loop.training.guard.learning_guard`.
        """
        if self._guarded is None or not self._guarded.unusual:
            return None
        unusual = tuple(self._guarded.unusual)
        with self._computing:
            why = self._guarded.jumped()
        if why is None:
            return None
        return HeadwaterError(*jump_in_words(self._recipe.pipeline, unusual, why))

    def exclude(self, exclusions: tuple[OffsetRange, ...]) -> bool:
        """Exclude offsets from here on; return False if this fold learned some of them.

        The caller must fold anew then.

        Parameters
        ----------
        exclusions
            All ranges to exclude.
        """
        start = self._recipe.examples.start
        known = self._recipe.exclusions
        new = [span for span in exclusions if span not in known]
        if any(span.start < self._learned_to and span.stop > start for span in new):
            return False
        self._recipe = replace(self._recipe, exclusions=exclusions)
        return True

    @property
    def batch_rows(self) -> int:
        """How many offsets a batch has."""
        return self._recipe.batch_rows or 1

    @property
    def next_cut(self) -> int:
        """The offset behind the next batch."""
        return (self._learned_to // self.batch_rows + 1) * self.batch_rows

    def cut(self, offset: int) -> int:
        """Return the end of the last full batch below an offset."""
        return offset // self.batch_rows * self.batch_rows

    def unlearned(self, start: int, stop: int) -> Offsets:
        """Return the excluded offsets of a range, rising."""
        return unlearned(self._log, self._range(start, stop))

    def _end(self, most: int) -> int:
        """Return how far to learn at once: one batch, which a failure leaves unlearned as a whole."""
        if not self._any:
            return self.next_cut
        return min(self._learned_to + most, (self._learned_to // _STEP + 1) * _STEP)

    def _learn(self, stop: int) -> int:
        """Learn up to an offset: all, or nothing."""
        learned = 0
        try:
            with self._computing:
                for batch in batches(self._log, self._range(self._learned_to, stop)):
                    if self._guarded is None:
                        self.learner.learn(batch.features, batch.labels)
                    else:
                        self._guarded.learn(*batch)
                    learned += len(batch.labels)
        except Exception as error:
            if isinstance(error, HeadwaterError) and not isinstance(error, SchemaError):
                raise
            span = OffsetRange(self._learned_to, stop)
            out = batch.offsets.gather(error.rows) if isinstance(error, RuinError) else None
            raise unlearnable(self._recipe.pipeline, span, error, out) from error
        self._learned_to = stop
        return learned

    def _guarded_learner(self) -> GuardedLearner:
        """Return the learner with a guard that knows the examples before the range."""
        start = self._learned_to
        guard = guard_at(self._log, self._range(start, start))
        return GuardedLearner(self.learner, guard, waits=True)

    def _range(self, start: int, stop: int) -> Recipe:
        exclusions = tuple(
            span for span in self._recipe.exclusions if span.start < stop and span.stop > start
        )
        return replace(self._recipe, examples=OffsetRange(start, stop), exclusions=exclusions)
