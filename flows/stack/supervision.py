"""Start a process of the stack again when it ends, with growing delays and up to a limit."""

from headwater.infra.processes import Child

__all__ = ["Supervision"]

_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
_WINDOW_S = 600.0


class Supervision:
    """Supervises one process, so that the service and the other processes do not end with it.

    The process starts again a second after its first end within ten minutes, two seconds after the
    second, up to sixteen after the fifth.

    Parameters
    ----------
    child
        The process.
    """

    def __init__(self, child: Child) -> None:
        self._child = child
        self._ends: list[float] = []
        self._due_s: float | None = None

    def check(self, now_s: float) -> str | None:
        """Check the process, and start it again if that is due.

        Parameters
        ----------
        now_s
            Seconds on a clock that only goes forward.

        Returns
        -------
        str or None
            A message for a person; None if the process runs, or waits.

        Raises
        ------
        ServerError
            If it ended for the sixth time within ten minutes; the error has the end of its log.
        """
        if self._due_s is not None:
            return self._start_again() if now_s >= self._due_s else None
        if self._child.status is None:
            return None
        self._ends = [end for end in self._ends if now_s - end < _WINDOW_S]
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
