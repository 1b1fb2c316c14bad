"""A version on the loop of its worker, where all requests of all pipelines are answered."""

import os
from collections.abc import Callable
from time import perf_counter

from headwater.learners.learner import Learner
from headwater.serving.isolation.at_work import OVER, ModelWork, mark_of, marked
from headwater.serving.isolation.loop_cost import LOOP_S, LoopCost, Stopwatch
from headwater.serving.worker.isolated_models import IsolatedModel
from headwater.spec.data.records import FeatureValue, Output
from headwater.spec.data.scalars import plain_output

__all__ = ["LoopModel"]

_forks = 0
"""How often the processes down to this one were forked since the import."""


def _note_fork() -> None:
    global _forks  # noqa: PLW0603 - as of the process
    _forks += 1


os.register_at_fork(after_in_child=_note_fork)


class LoopModel:
    """A learner on the loop. What it works on is marked for the worker's parent, and its cost is kept.

    Parameters
    ----------
    learner
        Its learned state.
    cost
        The cost of its version.
    work
        Whose work it does.
    leave
        Called with the reason once its version must leave the loop; returns what takes its place.

    Attributes
    ----------
    moved_to
        What has taken its place; None while it is on the loop.
    """

    __slots__ = ("_cost", "_forks", "_learner", "_leave", "_mark", "_memory", "moved_to")

    def __init__(
        self,
        learner: Learner,
        cost: LoopCost,
        work: ModelWork,
        leave: Callable[[str], IsolatedModel | None],
    ) -> None:
        self._learner = learner
        self._cost = cost
        self._mark = mark_of(work)
        self._memory = marked()
        self._leave = leave
        self._forks = _forks
        self.moved_to: IsolatedModel | None = None

    def predict_one(self, features: dict[str, FeatureValue]) -> Output:
        """Return the output for some features; the model may raise anything."""
        memory = self._memory
        watch = self._cost.begin()
        memory.value = self._mark
        began_s = perf_counter()
        try:
            output: Output = plain_output(self._learner.predict_one(features))
            return output
        finally:
            took_s = perf_counter() - began_s
            if _forks != self._forks:
                os._exit(0)  # the model forked: the copy must not answer, too
            memory[0] = OVER
            if took_s > LOOP_S or watch is not None:
                self._judge(took_s, watch)

    def _judge(self, took_s: float, watch: Stopwatch | None) -> None:
        reason = self._cost.end(took_s, watch)
        if reason:
            self.moved_to = self._leave(reason)
