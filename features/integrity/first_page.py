"""A SQLite file whose first page is damaged cannot be opened: the page is taken from a file like it.

The first page has the header and the beginning of the schema. A file that is made by the same
statements, in the same order, has the same one, but for the counts in its header.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from headwater.infra.store.sqlite import BUSY_S

__all__ = ["cannot_be_opened", "companions", "put_first_page", "set_aside"]

_PAGE_BYTES = 16_384  # as `prepare` makes files
_CHANGES, _PAGES, _FREE, _VALID_FOR = slice(24, 28), slice(28, 32), slice(32, 40), slice(92, 96)
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def companions(path: Path) -> Iterator[Path]:
    """Yield a SQLite file and what belongs to it: its write-ahead log, its shared memory."""
    yield path
    yield path.with_name(f"{path.name}-wal")
    yield path.with_name(f"{path.name}-shm")


def cannot_be_opened(path: Path) -> bool:
    """Return whether a file is there that SQLite cannot open, since it is damaged."""
    if not path.is_file():
        return False
    try:
        with _opened(path) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.DatabaseError as error:
        return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _DAMAGED
    return False


def put_first_page(damaged: Path, like: Path, mended: Path) -> bool:
    """Copy a damaged file with its write-ahead log, and give the copy the first page of a file like it.

    Parameters
    ----------
    damaged
        It is not changed.
    like
        Of the same schema, made by the same statements, closed.
    mended
        The copy; one file when this returns True.

    Returns
    -------
    bool
        Whether SQLite finds the copy whole: every page, every index. If not, it is removed.
    """
    for source, target in zip(companions(damaged), companions(mended), strict=True):
        target.unlink(missing_ok=True)
        if source.exists() and not source.name.endswith("-shm"):
            shutil.copyfile(source, target)
    page = bytearray(like.read_bytes()[:_PAGE_BYTES])
    page[_PAGES] = (mended.stat().st_size // _PAGE_BYTES).to_bytes(4)
    page[_FREE] = bytes(8)
    page[_VALID_FOR] = page[_CHANGES]
    with mended.open("r+b") as file:
        file.write(page)
    whole = _is_whole(mended)
    if whole:
        descriptor = os.open(mended, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for path in companions(mended):
        if not whole or path != mended:
            path.unlink(missing_ok=True)
    return whole


def set_aside(path: Path, now: datetime) -> Path:
    """Keep a damaged file and its write-ahead log under names of their own too; return the file's.

    Both stay where they are as well: what takes their place replaces them.
    """
    aside = path.with_name(f"{path.name}.damaged-{now:%Y%m%dT%H%M%S%f}")
    for source, target in zip(companions(path), companions(aside), strict=True):
        if source.exists() and not source.name.endswith("-shm"):
            try:
                target.hardlink_to(source)
            except OSError:  # a file system without links
                shutil.copyfile(source, target)
    return aside


def _is_whole(path: Path) -> bool:
    try:
        with _opened(path) as connection:
            found = connection.execute("PRAGMA integrity_check(1000000)").fetchall()
            # Pages that were free are no longer listed: they stay unused.
            faults = [text for (text,) in found if text != "ok" and "never used" not in text]
            return not faults and not connection.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.DatabaseError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as connection:
        yield connection
