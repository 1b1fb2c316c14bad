"""Small files that one process publishes whole, and that any number of others follow.

A publication takes the place of the one before in one step: a reader meets the one or the other, and a
writer that is killed leaves what was there. A follower compares what identifies a publication, a few
times a second, and reads the file only if that is another.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from headwater.spec.errors import HeadwaterError, ModelError, StorageError

__all__ = ["LOAD_ERRORS", "Follower", "Publication", "PublishedFile", "reason_of", "replacing"]

T = TypeVar("T")

_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.25, 30.0
_PASSING = (StorageError, ModelError, OSError, MemoryError)
LOAD_ERRORS = (HeadwaterError, OSError, MemoryError)
"""The errors with which loading what is published may fail."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft beside a file, which takes the file's place when the block ends without an error.

    Parameters
    ----------
    path
        The file; nothing need be there yet but its folder.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")  # two writers share no draft
    draft.unlink(missing_ok=True)
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


class Publication(NamedTuple):
    """The identity of a publication: another one of the same file has another.

    Parameters
    ----------
    modified_ns
        Its time, which rises with each publication of a file.
    inode
        The number of its file: it tells apart where the disk keeps coarse times.
    """

    modified_ns: int
    inode: int


class PublishedFile(Generic[T]):
    """A file that holds one value as JSON.

    Parameters
    ----------
    path
        Its place; the folder is made with the first publication.
    kind
        The type of the value.
    hint
        The way on if it cannot be read.
    private
        Whether only its owner may read it.
    """

    def __init__(self, path: Path, kind: type[T], hint: str, *, private: bool = False) -> None:
        self.path = path
        self._kind = kind
        self._hint = hint
        self._mode = 0o600 if private else 0o666  # less what the process's umask takes

    def publish(self, value: T) -> None:
        """Replace the value; followers see another publication, however soon it comes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as draft:
            with open(draft, "xb", opener=lambda path, flags: os.open(path, flags, self._mode)) as file:
                file.write(self.encode(value))
            before = self.publication()
            if before is not None:  # the kernel's times stand still for a tick, and inodes come again
                modified_ns = max(time.time_ns(), before.modified_ns + 1)
                os.utime(draft, ns=(modified_ns, modified_ns))

    def publication(self) -> Publication | None:
        """Return what identifies the present publication; None where there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return Publication(found.st_mtime_ns, found.st_ino)

    def read(self) -> T | None:
        """Return the value; None where nothing was published yet.

        Raises
        ------
        StorageError
            If the file cannot be read, or is damaged.
        """
        try:
            return self.decode(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StorageError(f"{self.path} cannot be read: {error}", hint=self._hint) from error

    def encode(self, value: T) -> bytes:
        """Return what the file holds for a value."""
        return msgspec.json.encode(value)

    def decode(self, content: bytes) -> T:
        """Return the value of what the file holds.

        Raises
        ------
        msgspec.DecodeError
            If it is damaged.
        """
        return msgspec.json.decode(content, type=self._kind)


class Follower:
    """Says when to load what a file publishes: each publication once, and again if a reason may pass.

    A missing or torn file, a full disk or a lack of memory passes: loading is due again after a quarter
    of a second, and then after twice as long each time, up to half a minute. What cannot be loaded at
    all waits for another publication. The caller asks :meth:`is_due` often, and calls :meth:`failed`.

    Parameters
    ----------
    file
        What is followed.
    now_s
        The time in seconds, on a clock that only goes forward.
    """

    def __init__(self, file: PublishedFile[Any], now_s: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._now_s = now_s
        self._seen: Publication | None = None
        self._reported: set[str] = set()
        self._again_s = -math.inf  # the first time, whatever is there
        self._delay_s = _FIRST_DELAY_S

    def is_due(self) -> bool:
        """Return whether to load now; the caller does so then."""
        publication = self._file.publication()
        if publication != self._seen:
            self._seen, self._delay_s = publication, _FIRST_DELAY_S
            self._reported.clear()
        elif self._now_s() < self._again_s:
            return False
        self._again_s = math.inf
        return True

    def failed(self, error: Exception) -> bool:
        """Note that something of the publication failed to load; return whether that is news.

        Parameters
        ----------
        error
            One of :data:`LOAD_ERRORS`.
        """
        if isinstance(error, _PASSING) and self._again_s == math.inf:
            self._again_s = self._now_s() + self._delay_s
            self._delay_s = min(2 * self._delay_s, _LONGEST_DELAY_S)
        known = len(self._reported)
        self._reported.add(reason_of(error))
        return len(self._reported) > known


def reason_of(error: Exception) -> str:
    """Return why something did not load, for a person; a lack of memory says nothing itself.

    >>> reason_of(MemoryError()), reason_of(StorageError("the disk is away"))
    ('MemoryError', 'the disk is away.')
    """
    return str(error) or type(error).__name__
