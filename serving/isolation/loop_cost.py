"""The rule by which a version leaves a worker's loop: it is slow, it stalls, or it takes memory."""

import resource
from collections import deque
from time import perf_counter, thread_time
from typing import NamedTuple

__all__ = ["LOOP_S", "LoopCost", "Stopwatch", "slow_probes"]

LOOP_S = 0.002
"""A version stays on the loop while all but one prediction in a hundred take less, in seconds."""

_STALL_S, _FIRST_STALL_S = 0.25, 2.0  # a first prediction may import
_NEWEST = 1_000
_SAMPLED, _LOOKED_AT = 64, 64
_MOST_MB, _FEWEST_GROWTHS = 256.0, 4


class Stopwatch(NamedTuple):
    """What this thread and its process had used when a prediction began.

    Parameters
    ----------
    wall_s, cpu_s
        Clocks of the machine and of the thread's processor time, in seconds.
    waits
        How often the thread gave its processor up by itself, to wait.
    peak_mb
        The most memory that the process ever had, in megabytes.
    """

    wall_s: float
    cpu_s: float
    waits: int
    peak_mb: float

    @classmethod
    def start(cls) -> "Stopwatch":
        """Start one."""
        thread = resource.getrusage(resource.RUSAGE_THREAD)
        return cls(perf_counter(), thread_time(), thread.ru_nvcsw, thread.ru_maxrss / 1_024)

    def took_s(self) -> float:
        """Return the seconds since: of the processor, but if the thread waited, of the clock.

        So a model is not slow for what else runs on its machine.
        """
        thread = resource.getrusage(resource.RUSAGE_THREAD)
        if thread.ru_nvcsw != self.waits:
            return perf_counter() - self.wall_s
        return thread_time() - self.cpu_s

    def grown_mb(self) -> float:
        """Return by how much the peak of the process's memory grew."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024 - self.peak_mb


def slow_probes(took_s: list[float]) -> str:
    """Return why a version with such probes must not predict on the loop; empty if it may.

    The quickest counts: others prepare what later ones use, or share a busy machine. What is slow for
    some features alone shows itself on the loop.

    >>> slow_probes([0.03, 0.004, 0.0001]), slow_probes([0.02, 0.004, 0.005])
    ('', 'each of its probes took 4 ms or more')
    """
    least_s = min(took_s, default=0.0)
    return f"each of its probes took {least_s * 1_000:.0f} ms or more" if least_s > LOOP_S else ""


class LoopCost:
    """What a version costs the loop of its worker, prediction by prediction.

    One prediction of 64 is looked at closely, and so are those after one that took long. Slow ones
    count once they have cost the loop as much as one stall: a few may wait for a busy machine. Growth
    of memory in one of 64 counts for all of them.
    """

    __slots__ = ("_calls", "_grown_mb", "_growths", "_looks", "_slow")

    def __init__(self) -> None:
        self._calls = 0
        self._looks = 0
        self._slow: deque[tuple[int, float]] = deque()
        self._grown_mb = 0.0
        self._growths = 0

    def begin(self) -> Stopwatch | None:
        """Note that a prediction begins; return a stopwatch if it is looked at closely."""
        self._calls += 1
        if self._looks:
            self._looks -= 1
        elif self._calls % _SAMPLED:
            return None
        return Stopwatch.start()

    def end(self, wall_s: float, watch: Stopwatch | None) -> str:
        """Note the end of a prediction that took long, or is looked at; return why to leave the loop.

        Parameters
        ----------
        wall_s
            Seconds that it took by the clock.
        watch
            What :meth:`begin` has returned.

        Returns
        -------
        str
            Empty while the version may stay.
        """
        if wall_s > (_STALL_S if self._calls > 1 else _FIRST_STALL_S):
            return f"a prediction took {wall_s:.2f} s"
        if watch is None:
            self._looks = _LOOKED_AT
            return ""
        return self._slowness(watch.took_s()) or self._growth(watch.grown_mb())

    def _slowness(self, took_s: float) -> str:
        if took_s <= LOOP_S:
            return ""
        self._looks = _LOOKED_AT
        self._slow.append((self._calls, took_s))
        while self._slow[0][0] <= self._calls - _NEWEST:
            self._slow.popleft()
        newest, slow = min(self._calls, _NEWEST), len(self._slow)
        together_s = sum(one_s for _, one_s in self._slow)
        if slow > newest / 100 and together_s > _STALL_S:
            return (
                f"{slow} of its last {newest} predictions took more than 2 ms each, "
                f"{together_s:.2f} s together"
            )
        return ""

    def _growth(self, grown_mb: float) -> str:
        if grown_mb <= 0 or self._calls % _SAMPLED:
            return ""
        self._growths += 1
        self._grown_mb += grown_mb * _SAMPLED
        if self._grown_mb > _MOST_MB and self._growths >= _FEWEST_GROWTHS:
            return f"it took about {self._grown_mb:,.0f} MB of memory in {self._calls:,} predictions"
        return ""
