"""Copies of SQLite files that others write meanwhile, by SQLite's own backup; inboxes among them."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from headwater.features.record.imported_files import folder_of
from headwater.infra.store.sqlite import BUSY_S
from headwater.loop.upkeep.manifest import Told
from headwater.spec.errors import StorageError

__all__ = ["copy_file", "copy_inbox", "end_of_inbox", "guarded", "only_reading", "write_copy"]

_PAGES = 1_000


def write_copy(source: sqlite3.Connection, target: Path, what: str, told: Told) -> None:
    """Copy a database to a new file, as a connection sees it.

    Parameters
    ----------
    source
        With an open read transaction, the copy is of that moment, however long it takes.
    target
        The new file; one file when this returns, without a write-ahead log.
    what, told
        For the progress.
    """

    def step(_status: int, remaining: int, pages: int) -> None:
        told(what, pages - remaining, pages)

    with closing(sqlite3.connect(target)) as copy:
        source.backup(copy, pages=_PAGES, progress=step)


def copy_file(source: Path, target: Path, what: str, told: Told) -> None:
    """Copy a SQLite file in one go: others who write the file wait if it has no write-ahead log.

    Raises
    ------
    StorageError
        If it cannot be read, or the copy not be written.
    """
    with guarded(source), closing(only_reading(source)) as connection:
        with closing(sqlite3.connect(target)) as copy:
            connection.backup(copy)
        told(what, 1, 1)


def copy_inbox(source: Path, target: Path, told: Told) -> int:
    """Copy an inbox with its imported files, as they are at one moment; return its last position.

    Raises
    ------
    StorageError
        If a file cannot be read or written.
    """
    what = f"inbox of {source.stem}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with guarded(source), closing(only_reading(source)) as connection:
        connection.execute("BEGIN")  # and the first query sets the moment
        ((end,),) = connection.execute("SELECT coalesce(max(position), 0) FROM entry").fetchall()
        imported = [name for (name,) in connection.execute("SELECT file FROM imported")]
        write_copy(connection, target, what, told)
        connection.execute("COMMIT")
        if imported:
            folder_of(target).mkdir(exist_ok=True)
        for name in imported:  # a file of an import never changes
            shutil.copyfile(folder_of(source) / name, folder_of(target) / name)
    return int(end)


def end_of_inbox(path: Path) -> int:
    """Return the last position of a copied inbox, and leave no file beside it."""
    with guarded(path), closing(only_reading(path, still=True)) as connection:
        ((end,),) = connection.execute("SELECT coalesce(max(position), 0) FROM entry").fetchall()
    return int(end)


def only_reading(path: Path, *, still: bool = False) -> sqlite3.Connection:
    """Open a SQLite file to read; `still` promises that nobody writes it, so that no lock is needed."""
    address = f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if still else ''}"
    return sqlite3.connect(address, uri=True, timeout=BUSY_S, isolation_level=None)


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the disk into errors that name the file.

    Raises
    ------
    StorageError
        If there was one.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StorageError(
            f"{path} cannot be copied: {error}", hint="check the disk, then do it again"
        ) from error
