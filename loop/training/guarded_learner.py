"""Learn examples so that none of them ruins the state: the effects of the guard of live learning."""

import polars as pl

from headwater.learners.learner import Learner
from headwater.learners.process_state import generators_put_back
from headwater.loop.training.learning_guard import LearningGuard
from headwater.spec.errors import SchemaError

__all__ = ["GuardedLearner"]


class GuardedLearner:
    """A learner that puts its state back if a batch ruins it.

    Parameters
    ----------
    learner
        The learner; changed by :meth:`learn`.
    guard
        Knows the examples that were learned last.
    """

    def __init__(self, learner: Learner, guard: LearningGuard) -> None:
        self._learner = learner
        self._guard = guard

    def learn(self, features: pl.DataFrame, labels: pl.Series) -> None:
        """Learn a batch, in its order.

        Raises
        ------
        SchemaError
            If it would ruin the state, which is then what it was before.
        NonFiniteError, UnlearnableError
            As :meth:`~headwater.learners.learner.Learner.learn` does.
        """
        learner, guard = self._learner, self._guard
        after, far = guard.after(features, labels), guard.far_out(features, labels)
        before = learner.dump() if far is not None or after.watches_outputs else b""
        if not before:
            learner.learn(features, labels)
        else:
            try:
                self._learn_or_refuse(features, labels, far, before, after)
            except Exception:
                learner.load(before)
                raise
        self._guard = after

    def _learn_or_refuse(
        self,
        features: pl.DataFrame,
        labels: pl.Series,
        far: pl.Series | None,
        before: bytes,
        after: LearningGuard,
    ) -> None:
        why = None
        if far is None:
            self._learner.learn(features, labels)
        else:
            why = self._learn_twice(features, labels, far, before)
        if why is None and after.watches_outputs:
            why = self._ruin(after, before)
        if why is not None:
            raise SchemaError(f"it would ruin the learned state: {why}", hint="quarantine it")

    def _learn_twice(
        self, features: pl.DataFrame, labels: pl.Series, far: pl.Series, before: bytes
    ) -> str | None:
        """Learn without what is far out, then all of it; return in words what the difference does."""
        learner, guard = self._learner, self._guard
        probes = pl.concat([guard.probes, features.filter(far)], how="vertical_relaxed")
        with generators_put_back():
            if not far.all():
                learner.learn(features.filter(~far), labels.filter(~far))
            without = learner.predict(probes)
        learner.load(before)
        learner.learn(features, labels)
        with generators_put_back():
            return guard.jump(without, learner.predict(probes))

    def _ruin(self, after: LearningGuard, before: bytes) -> str | None:
        """Return in words why the outputs are ruined now; None if they are not, or were before."""
        learner = self._learner
        with generators_put_back():
            why = after.ruin(learner.predict(after.probes))
            if why is None:
                return None
            learned = learner.dump()
            learner.load(before)
            if after.ruin(learner.predict(after.probes)) is None:
                return why
        learner.load(learned)
        return None
