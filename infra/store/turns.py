"""The processes that use one file: a fair queue of those that write, and whether there are any."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import IO, Self

import psutil

from headwater.spec.errors import BusyError, ConflictError

__all__ = ["WriterQueue", "alone", "deleting", "present"]

_LOOK_S = 0.0005
_PATIENCE_S = 2.0


class WriterQueue:
    """A place in a fair queue of processes, held within the ``with`` block.

    SQLite has no queue: who finds a file locked sleeps for up to a tenth of a second and looks again, so
    that a process which writes all the time leaves another one waiting for half a second. Here who waits
    stands at a door, and who has just had its turn stands behind it.

    It is a courtesy, and SQLite's own lock the rule: after `patience_s` the block is entered without a
    turn, and so is each later one at once, until there is a turn again: the process that has it may have
    been stopped. A process that is killed gives its places up. One thread at a time.

    Source: the turnstile of A. B. Downey, "The Little Book of Semaphores", section 3.7.

    Parameters
    ----------
    path
        Of the file that is written. Beside it are made a ``.turn`` and a ``.next``, which stay empty.
    patience_s
        How many seconds the block waits for its turn before it is entered without one.

    Raises
    ------
    OSError
        If they cannot be made.
    """

    def __init__(self, path: Path, *, patience_s: float = _PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._hopes = True
        self._turn = path.with_suffix(".turn").open("ab")
        self._next = path.with_suffix(".next").open("ab")

    def __enter__(self) -> Self:
        until = monotonic() + (self._patience_s if self._hopes else 0.0)
        is_next = _lock(self._next, until)
        self._hopes = _lock(self._turn, until) and is_next
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


def present(path: Path) -> IO[bytes]:
    """Be known to use a file, until what is returned is closed or the process ends.

    Parameters
    ----------
    path
        Of the file. Beside it an empty ``.open`` is made, whose lock says so.

    Raises
    ------
    BusyError
        If another process has the file to itself.
    ConflictError
        If a deletion of the file was interrupted.
    OSError
        If it cannot be made.
    """
    mark = _mark(path).open("ab")
    try:
        fcntl.flock(mark, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        mark.close()
        raise BusyError(
            f"another process has {path} to itself", hint="wait for the command that works on it to end"
        ) from error
    if deleting(path).exists():
        mark.close()
        raise ConflictError(
            f"the pipeline of {path} is half deleted: that was interrupted",
            hint=f"go on with it: headwater pipelines delete {path.stem}",
        )
    return mark


def deleting(path: Path) -> Path:
    """Return the file that marks another one as half deleted; it need not be there."""
    return path.with_suffix(".deleting")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Have a file to oneself for the length of a block, which need not be there.

    Raises
    ------
    BusyError
        If a process uses it; the error says which.
    """
    if not path.parent.exists():
        yield
        return
    with _mark(path).open("ab") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"{path} is in use{_by(_mark(path))}",
                hint="end what serves, trains or records there (headwater up, headwater serve) first",
            ) from error
        yield


def _mark(path: Path) -> Path:
    return path.with_suffix(".open")


def _by(mark: Path) -> str:
    """Name the processes that have a file open, as far as this user may see them."""
    found, path, mine = [], str(mark.resolve()), os.getpid()
    for process in psutil.process_iter(["pid", "name", "open_files"]):
        opened = [file for file in process.info["open_files"] or () if file.path == path]
        if len(opened) > (process.info["pid"] == mine):  # this one has it open to try its lock
            found.append(f"{process.info['pid']} ({process.info['name']})")
    return f" by process {', '.join(found)}" if found else ""


def _lock(file: IO[bytes], until: float) -> bool:
    """Wait for a lock with a limit; return whether it is held."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > until:
                return False
            sleep(_LOOK_S)
        else:
            return True
