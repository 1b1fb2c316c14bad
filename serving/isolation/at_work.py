"""What the loop of a worker works on, in memory that its parent shares.

So the parent knows which version a worker died of, or stands still in.
"""

from ctypes import Array, c_char, create_string_buffer
from typing import NamedTuple

__all__ = ["LENGTH", "LoopWork", "mark_of", "marked", "share", "work_of"]

LENGTH = 256
"""The size of the memory, in bytes."""

_shared: "Array[c_char]" = create_string_buffer(LENGTH)


class LoopWork(NamedTuple):
    """A prediction of a version on the loop.

    Parameters
    ----------
    pipeline, version
        The pipeline's name, and the version's number.
    deadline_s
        How many seconds it may take before its worker is replaced.
    """

    pipeline: str
    version: str
    deadline_s: float


def share(memory: "Array[c_char]") -> None:
    """Let this process mark its work in such memory, before it loads any version."""
    global _shared  # noqa: PLW0603 - one worker has one loop
    _shared = memory


def marked() -> "Array[c_char]":
    """Return the memory: its value is a mark, or empty while no version predicts."""
    return _shared


def mark_of(work: LoopWork) -> bytes:
    """Return the mark of some work."""
    return f"{work.pipeline} {work.version} {work.deadline_s}".encode()


def work_of(mark: bytes) -> LoopWork | None:
    """Return the work that is marked; None if none is.

    >>> work_of(mark_of(LoopWork("fraud", "7", 10.0)))
    LoopWork(pipeline='fraud', version='7', deadline_s=10.0)
    """
    parts = mark.decode(errors="replace").split(" ")
    if len(parts) != 3:
        return None
    return LoopWork(parts[0], parts[1], float(parts[2]))
