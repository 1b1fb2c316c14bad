"""Start a process of the stack again when it ends: later each time, and not for ever."""

from headwater.infra.processes import Child

__all__ = ["Supervision"]

_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
_FORGOTTEN_S = 600.0


class Supervision:
    """Looks after one process: the others, and the service first of all, do not end with it.

    It starts again a second after its first end within ten minutes, two after the second, up to sixteen
    after the fifth.

    Parameters
    ----------
    child
        The process.
    """

    def __init__(self, child: Child) -> None:
        self._child = child
        self._ends: list[float] = []
        self._due_s: float | None = None

    def look(self, now_s: float) -> str | None:
        """Start it again when that is due.

        Parameters
        ----------
        now_s
            Seconds on a clock that only goes forward.

        Returns
        -------
        str or None
            What a person should hear; None where it runs, or waits.

        Raises
        ------
        ServerError
            If it ended for the sixth time within ten minutes; with the end of its log.
        """
        if self._due_s is not None:
            return self._start_again() if now_s >= self._due_s else None
        if self._child.status is None:
            return None
        self._ends = [end for end in self._ends if now_s - end < _FORGOTTEN_S]
        if len(self._ends) == len(_DELAYS_S):
            self._child.check()
        delay = _DELAYS_S[len(self._ends)]
        self._ends.append(now_s)
        self._due_s = now_s + delay
        return (
            f"{self._child.name} ended with status {self._child.status}, starts again in {delay:.0f} s"
        )

    def _start_again(self) -> str:
        self._due_s = None
        self._child.start_again()
        return f"{self._child.name} runs again, process {self._child.pid}; its log: {self._child.log}"
