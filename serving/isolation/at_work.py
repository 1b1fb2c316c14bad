"""What a process works on with a user's model, in memory that the process that watches it shares.

So the one that watches knows which pipeline's model a process died of, or stands still in.
"""

import itertools
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import Array, c_char, create_string_buffer
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "LENGTH",
    "OVER",
    "ModelWork",
    "last_work_of",
    "mapped",
    "mark_of",
    "marked",
    "share",
    "work_of",
    "working",
]

LENGTH = 256
"""The size of the memory, in bytes."""

OVER = b"\0"
"""The first byte of a mark whose work is over; the rest stays, for :func:`last_work_of`."""

_BEGIN = "+"
_shared: "Array[c_char]" = create_string_buffer(LENGTH)
_numbers = itertools.count()


class ModelWork(NamedTuple):
    """Work that a model does.

    Parameters
    ----------
    pipeline
        The pipeline's name.
    at
        The version that predicts, or the offset from which is learned.
    limit_s
        How many seconds it may take before its process is replaced.
    number
        Tells one work from the next.
    """

    pipeline: str
    at: str
    limit_s: float
    number: int = 0


def share(memory: "Array[c_char]") -> None:
    """Let this process mark its work in such memory, before it loads any version."""
    global _shared  # noqa: PLW0603 - a process works on one thing at a time
    _shared = memory


def mapped(path: Path) -> "Array[c_char]":
    """Return the memory of a file, which is made; all that map it share it.

    Raises
    ------
    OSError
        If the disk refuses it: its space is taken now, since a write to the memory cannot be refused.
    """
    with path.open("a+b") as file:
        if file.tell() < LENGTH:
            file.write(bytes(LENGTH))
            file.flush()
        return (c_char * LENGTH).from_buffer(mmap.mmap(file.fileno(), LENGTH))


def marked() -> "Array[c_char]":
    """Return the memory: its value is a mark, or empty while no model works."""
    return _shared


@contextmanager
def working(pipeline: str, at: object, limit_s: float) -> Iterator[None]:
    """Mark that a model works, until the block ends."""
    _shared.value = mark_of(ModelWork(pipeline, str(at), limit_s, next(_numbers)))
    try:
        yield
    finally:
        _shared[0] = OVER


def mark_of(work: ModelWork) -> bytes:
    """Return the mark of some work."""
    return " ".join((_BEGIN, *map(str, work))).encode()


def work_of(mark: bytes) -> ModelWork | None:
    """Return the work that is marked; None if none is.

    >>> work_of(mark_of(ModelWork("fraud", "7", 10.0)))
    ModelWork(pipeline='fraud', at='7', limit_s=10.0, number=0)
    """
    parts = mark.decode(errors="replace").split(" ")[1:]
    if len(parts) != len(ModelWork._fields):
        return None
    return ModelWork(parts[0], parts[1], float(parts[2]), int(parts[3]))


def last_work_of(raw: bytes) -> ModelWork | None:
    """Return the work of the newest mark, also if it is over: then its first byte alone is removed.

    >>> last_work_of(OVER + mark_of(ModelWork("fraud", "7", 10.0))[1:] + OVER)
    ModelWork(pipeline='fraud', at='7', limit_s=10.0, number=0)
    """
    return work_of(raw[1:].partition(b"\0")[0])
