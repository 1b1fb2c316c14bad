"""Learn examples so that none of them ruins the state: the effects of the guard of live learning."""

from collections.abc import Sequence

import polars as pl

from headwater.learners.learner import Learner
from headwater.learners.process_state import generators_put_back
from headwater.loop.training.guard.learning_guard import LearningGuard
from headwater.spec.data.records import Output
from headwater.spec.errors import NonFiniteError, SchemaError

__all__ = ["GuardedLearner", "RuinError"]

_MOST_NAMED = 5


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
    waits
        Whether the caller asks :meth:`jumped` before it serves the state, and waits. A batch in which no
        number is out is not refused then, whatever it does.

    Attributes
    ----------
    unusual
        Offsets of the first examples that are unusual, as
        :mod:`~headwater.loop.training.guard.learning_guard` has it, or that have ruined the outputs for
        now; empty again once :meth:`jumped` gives None.
    """

    def __init__(self, learner: Learner, guard: LearningGuard, *, waits: bool = False) -> None:
        self._waits = waits
        self.unusual: list[int] = []
        self._learner = learner
        self._guard = guard
        self._before_unusual: bytes | None = None

    def learn(self, features: pl.DataFrame, labels: pl.Series, offsets: pl.Series) -> None:
        """Learn a batch, in its order.

        Parameters
        ----------
        features, labels, offsets
            Of the examples.

        Raises
        ------
        RuinError
            If it would ruin the state, which is then what it was before.
        NonFiniteError, UnlearnableError
            As :meth:`~headwater.learners.learner.Learner.learn` does.
        """
        learner, guard = self._learner, self._guard
        after, (out, unusual) = guard.after(features, labels), guard.marks(features, labels)
        watched = not (out is None and unusual is None) or after.watches_outputs
        before = learner.dump() if watched else b""
        spoilt = False
        if not before:
            learner.learn(features, labels)
        else:
            try:
                spoilt = self._learn_or_refuse(features, labels, out, before, after)
            except Exception as error:
                learner.load(before)
                if isinstance(error, NonFiniteError) and out is not None:
                    raise RuinError(error.what, out.arg_true().to_list()) from error
                raise
        self._guard = after
        if unusual is not None or spoilt:
            self._before_unusual = self._before_unusual or before
            self.unusual += (offsets if unusual is None else offsets.filter(unusual)).to_list()
            del self.unusual[_MOST_NAMED:]

    def jumped(self) -> str | None:
        """Return in words how unusual examples made the state worse; None if they did not, or no more.

        It is compared with the state before them, on the newest examples, now and after both have
        learned those once more. Once it is not so much worse, that state is forgotten.
        """
        learner, before = self._learner, self._before_unusual
        if before is None:
            return None
        with generators_put_back():
            learned = learner.dump()
            try:
                why = self._worse_than(before)
            except Exception as error:  # noqa: BLE001 - whatever a model does, its state is put back
                why = f"the newest examples cannot be learned again: {type(error).__name__}: {error}"
            finally:
                learner.load(learned)
        if why is None:
            self._before_unusual = None
            self.unusual.clear()
        return why

    def _worse_than(self, before: bytes) -> str | None:
        """Return in words how much worse the state is than an earlier one, which it becomes."""
        learner, guard = self._learner, self._guard
        now, later = learner.predict(guard.probes), self._later(guard)
        learner.load(before)
        then = learner.predict(guard.probes)
        why = guard.harm(then, now) or guard.ruin(now, then)
        return why or guard.harm(self._later(guard), later)

    def _learn_or_refuse(
        self,
        features: pl.DataFrame,
        labels: pl.Series,
        out: pl.Series | None,
        before: bytes,
        after: LearningGuard,
    ) -> bool:
        """Learn a batch; return whether outputs are ruined now, though no number is out.

        So they are for a while where a feature begins to change, and a line swings.
        """
        why = None
        if out is None:
            self._learner.learn(features, labels)
        else:
            why = self._learn_twice(features, labels, out, before)
        if why is None and after.watches_outputs:
            why = self._ruin(after, before)
        if why is not None and out is None and self._waits:
            return True
        if why is not None:
            rows = [] if out is None else out.arg_true().to_list()
            raise RuinError(f"it would ruin the learned state: {why}", rows)
        return False

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
        """Return in words why outputs are ruined now; None if they are not, or nearly were before."""
        learner = self._learner
        with generators_put_back():
            outputs = learner.predict(after.probes)
            if after.ruin(outputs) is None:
                return None
            learned = learner.dump()
            learner.load(before)
            why = after.ruin(outputs, learner.predict(after.probes))
            learner.load(learned)
        return why
