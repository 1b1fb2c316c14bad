"""A fair queue of processes that write one file: none writes twice while another one waits."""

import fcntl
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import IO, Self

from headwater.infra.store.sqlite import BUSY_S

__all__ = ["WriterQueue"]

_LOOK_S = 0.0005


class WriterQueue:
    """A place in a fair queue of processes, held within the ``with`` block.

    SQLite has no queue: who finds a file locked sleeps for up to a tenth of a second and looks again, so
    that a process which writes all the time leaves another one waiting for half a second. Here who waits
    stands at a door, and who has just had its turn stands behind it.

    It is a courtesy, and SQLite's own lock the rule: after `patience_s` the block is entered without a
    turn. A process that is killed gives its places up. One thread at a time.

    Source: the turnstile of A. B. Downey, "The Little Book of Semaphores", section 3.7.

    Parameters
    ----------
    path
        Of the file that is written. Beside it are made a ``.turn`` and a ``.next``, which stay empty.
    patience_s
        How many seconds the block waits for its turn before it is entered without one; by default as
        many as SQLite waits for its lock.

    Raises
    ------
    OSError
        If they cannot be made.
    """

    def __init__(self, path: Path, *, patience_s: float = BUSY_S) -> None:
        self._patience_s = patience_s
        self._turn = path.with_suffix(".turn").open("ab")
        self._next = path.with_suffix(".next").open("ab")

    def __enter__(self) -> Self:
        until = monotonic() + self._patience_s
        _lock(self._next, until)
        _lock(self._turn, until)
        fcntl.flock(self._next, fcntl.LOCK_UN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files."""
        self._turn.close()
        self._next.close()


def _lock(file: IO[bytes], until: float) -> None:
    """Wait for a lock with a limit, since the process that holds it may have been stopped."""
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > until:
                return None
            sleep(_LOOK_S)
