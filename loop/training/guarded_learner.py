"""Learn examples so that none of them ruins the state: the effects of the guard of live learning."""

from collections.abc import Sequence

import polars as pl

from headwater.learners.learner import Learner
from headwater.learners.process_state import generators_put_back
from headwater.loop.training.learning_guard import LearningGuard
from headwater.spec.data.records import Output
from headwater.spec.errors import NonFiniteError, SchemaError

__all__ = ["GuardedLearner", "RuinError"]


class RuinError(SchemaError):
    """A batch would ruin the learned state.

    Parameters
    ----------
    what
        What it would do.
    rows
        Which examples of the batch are out; empty if none of them is.
    """

    def __init__(self, what: str, rows: Sequence[int] = ()) -> None:
        super().__init__(what, hint="quarantine it")
        self.rows = list(rows)


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
        RuinError
            If it would ruin the state, which is then what it was before.
        NonFiniteError, UnlearnableError
            As :meth:`~headwater.learners.learner.Learner.learn` does.
        """
        learner, guard = self._learner, self._guard
        after, out = guard.after(features, labels), guard.out(features, labels)
        before = learner.dump() if out is not None or after.watches_outputs else b""
        if not before:
            learner.learn(features, labels)
        else:
            try:
                self._learn_or_refuse(features, labels, out, before, after)
            except Exception as error:
                learner.load(before)
                if isinstance(error, NonFiniteError) and out is not None:
                    raise RuinError(error.what, out.arg_true().to_list()) from error
                raise
        self._guard = after

    def _learn_or_refuse(
        self,
        features: pl.DataFrame,
        labels: pl.Series,
        out: pl.Series | None,
        before: bytes,
        after: LearningGuard,
    ) -> None:
        why = None
        if out is None:
            self._learner.learn(features, labels)
        else:
            why = self._learn_twice(features, labels, out, before)
        if why is None and after.watches_outputs:
            why = self._ruin(after, before)
        if why is not None:
            rows = [] if out is None else out.arg_true().to_list()
            raise RuinError(f"it would ruin the learned state: {why}", rows)

    def _learn_twice(
        self, features: pl.DataFrame, labels: pl.Series, out: pl.Series, before: bytes
    ) -> str | None:
        """Learn without what is out, then all of it; return in words what the difference does."""
        learner, guard = self._learner, self._guard
        sound, sound_labels = features.filter(~out), labels.filter(~out)
        judging = guard.after(sound, sound_labels)
        far = guard.far_columns(features, labels)
        probes = pl.concat([judging.probes, features.filter(out)], how="vertical_relaxed")
        with generators_put_back():
            if sound.height:
                learner.learn(sound, sound_labels)
            without = learner.predict(probes)
            later_without = self._later(judging)
        learner.load(before)
        learner.learn(features, labels)
        with generators_put_back():
            learned, with_them = learner.dump(), learner.predict(probes)
            known = slice(0, judging.probes.height)
            why = judging.jump(without, with_them) if far else None
            why = why or judging.harm(without[known], with_them[known])
            why = why or judging.harm(later_without, self._later(judging))
            learner.load(learned)
        return why

    def _later(self, judging: LearningGuard) -> list[Output]:
        """Return the outputs once the newest examples were learned again, which spoils the state."""
        if self._learner.capabilities.stateful:
            self._learner.learn(*judging.rehearsed)
        return list(self._learner.predict(judging.probes))

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
