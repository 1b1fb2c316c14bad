"""The rule by which a version leaves a worker's loop: it is slow, it stalls, or it takes memory."""

import resource
from collections import deque
from statistics import median

__all__ = ["LoopCost", "peak_mb", "slow_probes"]

LOOP_S = 0.002
"""A version stays on the loop while all but one prediction in a hundred take less, in seconds."""

_STALL_S = 0.25
_NEWEST = 1_000
_FEWEST_SLOW = 5  # some may have waited for the machine
_SAMPLED = 16
_MOST_MB, _FEWEST_GROWTHS = 256.0, 4


def peak_mb() -> float:
    """Return the most memory that this process ever had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


def slow_probes(took_s: list[float]) -> str:
    """Return why a version with such probes must not predict on the loop; empty if it may.

    It is the median that counts, for the first prediction of a process prepares what later ones use, and
    another may have waited for a busy machine. A single probe that stalls counts alone.

    >>> slow_probes([0.03, 0.0001, 0.0001]), slow_probes([0.02, 0.004, 0.005])
    ('', 'half of its probes took more than 5 ms')
    """
    if not took_s:
        return ""
    middle = median(took_s)
    if middle > LOOP_S:
        return f"half of its probes took more than {middle * 1_000:.0f} ms"
    return ""


class LoopCost:
    """What a version costs the loop of its worker, prediction by prediction.

    Notes
    -----
    Memory is looked at in one prediction of sixteen: the growth of the process's peak there counts for
    all sixteen.
    """

    __slots__ = ("_before_mb", "_calls", "_grown_mb", "_growths", "_slow")

    def __init__(self) -> None:
        self._calls = 0
        self._slow: deque[int] = deque()
        self._before_mb = 0.0
        self._grown_mb = 0.0
        self._growths = 0

    def begin(self) -> bool:
        """Note that a prediction begins; return whether its memory is looked at."""
        self._calls += 1
        if self._calls % _SAMPLED:
            return False
        self._before_mb = peak_mb()
        return True

    def grew(self) -> str:
        """Note the memory after a prediction at which it is looked at; return why to leave the loop."""
        grown = peak_mb() - self._before_mb
        if grown > 0:
            self._growths += 1
            self._grown_mb += grown * _SAMPLED
        if self._grown_mb > _MOST_MB and self._growths >= _FEWEST_GROWTHS:
            return f"it took about {self._grown_mb:,.0f} MB of memory in {self._calls:,} predictions"
        return ""

    def slow(self, took_s: float) -> str:
        """Note a prediction that took longer than :data:`LOOP_S`; return why to leave the loop.

        Parameters
        ----------
        took_s
            Seconds that it took.

        Returns
        -------
        str
            Empty while the version may stay.
        """
        if took_s > _STALL_S:
            return f"a prediction took {took_s:.2f} s"
        self._slow.append(self._calls)
        while self._slow[0] <= self._calls - _NEWEST:
            self._slow.popleft()
        newest = min(self._calls, _NEWEST)
        if len(self._slow) >= _FEWEST_SLOW and len(self._slow) > newest / 100:
            return f"{len(self._slow)} of its last {newest} predictions took more than 2 ms"
        return ""
