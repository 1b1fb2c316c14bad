"""Counters in mapped files: each worker of a service adds to its own file, and any worker can sum all.

Adding is one store to memory: no lock, no system call, and nothing to send. A worker that is killed
leaves its file with its counts. The next worker takes the file over and counts on, so totals never
fall. A list of names beside each file says what its numbers are.
"""

import fcntl
import logging
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from headwater.infra.settings import Settings
from headwater.spec.errors import ServerError

__all__ = ["Cells", "Counters", "forget_counters"]

_MOST_WORKERS = 256
_CELLS = 16_384
_CELL_BYTES = 8
_SPARE = 0  # counts whatever there is no room for
_logger = logging.getLogger("headwater.metrics")


class Cells(NamedTuple):
    """The numbers that one worker has counted under one name.

    Parameters
    ----------
    family, labels
        The metric, and the values of its labels.
    values
        One number, or the numbers of a histogram.
    lives
        Whether that worker still runs.
    """

    family: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    lives: bool


class _Name(NamedTuple):
    family: str
    labels: tuple[str, ...]
    start: int
    size: int


class Counters:
    """The counters of one worker, and the sum over all workers.

    A worker makes it when it starts; :meth:`close` leaves the file to the next worker.

    Parameters
    ----------
    settings
        The address of the home folder.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = _folder(settings)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file, self._path = _claim_file(self._folder)
        self._map = _map_file(self._file)
        self.values = memoryview(self._map).cast("d")
        names = _read_names(self._path)
        self._places = {(name.family, name.labels): name.start for name in names}
        self._next = max((name.start + name.size for name in names), default=_SPARE + 1)

    def place(self, family: str, labels: tuple[str, ...], size: int = 1) -> int:
        """Return the place of a name in :attr:`values`; called once a name, not once a request.

        Parameters
        ----------
        family, labels
            The metric, and the values of its labels.
        size
            The count of its numbers.
        """
        known = self._places.get((family, labels))
        if known is not None:
            return known
        if self._next + size > _CELLS:
            _logger.warning("no room to count %s of %s", family, labels)
            return _SPARE
        start = self._places[family, labels] = self._next
        self._next += size
        line = msgspec.json.encode(_Name(family, labels, start, size)) + b"\n"
        try:
            with _names_file(self._path).open("ab") as file:
                file.write(line)
        except OSError as error:  # counting must not fail a request
            _logger.warning("%s of %s is counted, but not shown: %s", family, labels, error)
        return start

    def all_cells(self) -> Iterator[Cells]:
        """Yield the counts of all workers, of those that ended too."""
        for path in sorted(self._folder.glob("*.values")):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            values, lives = memoryview(content).cast("d"), _is_held(path)
            for name in _read_names(path):
                numbers = tuple(values[name.start : name.start + name.size])
                if len(numbers) == name.size:
                    yield Cells(name.family, name.labels, numbers, lives)

    def close(self) -> None:
        """Close the file, which the next worker takes over."""
        self.values.release()
        self._map.close()
        os.close(self._file)


def forget_counters(settings: Settings) -> None:
    """Remove the counters of services that ended."""
    for path in _folder(settings).glob("*.values"):
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _names_file(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def _folder(settings: Settings) -> Path:
    return settings.root / "live" / "counters"


def _claim_file(folder: Path) -> tuple[int, Path]:
    """Take the first file that no living worker holds; the kernel frees what a killed one held."""
    for number in range(_MOST_WORKERS):
        path = folder / f"{number}.values"
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file).st_nlink:  # and not just forgotten
                return file, path
        os.close(file)
    raise ServerError(
        f"{_MOST_WORKERS} workers count in {folder} already",
        hint="start fewer: headwater serve --workers",
    )


def _map_file(file: int) -> mmap.mmap:
    """Map a file with its blocks reserved, so that no later store meets a full disk."""
    try:
        os.posix_fallocate(file, 0, _CELLS * _CELL_BYTES)
        return mmap.mmap(file, _CELLS * _CELL_BYTES)
    except OSError as error:
        _logger.warning("what this worker counts is not shown: %s", error)
        return mmap.mmap(-1, _CELLS * _CELL_BYTES)


def _is_held(path: Path) -> bool:
    """Return whether a living worker holds a file; a worker of this process counts too."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _names_file(path: Path) -> Path:
    return path.with_suffix(".names")


def _read_names(path: Path) -> Sequence[_Name]:
    """Read the names of a file's numbers; a line that was not written to its end is left out."""
    try:
        lines = _names_file(path).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    names = []
    for line in lines:
        with suppress(msgspec.DecodeError):
            names.append(msgspec.json.decode(line, type=_Name))
    return names
