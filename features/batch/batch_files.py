"""The answers of a batch run as files: Parquet for any reader, and one table for look-ups by key.

In storage a run is a folder, ``batch/PIPELINE/RUN``: ``part-00000.parquet`` and on, with a row a
prediction, and ``answers.sqlite``. A look-up walks a B-tree by key, so it reads a few pages of a table
however long that is; and building the tree finds a key that comes twice.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, Self

import msgspec
import polars as pl

from headwater.infra.store.storage import Storage
from headwater.spec.data.records import Output
from headwater.spec.errors import SchemaError, StorageError

__all__ = ["AnswerTable", "BatchFiles", "FoundAnswer", "TableWriter", "sha256_of"]

_SCHEMA = """
CREATE TABLE answer (
    key TEXT PRIMARY KEY,
    place INTEGER NOT NULL,
    output TEXT NOT NULL
) WITHOUT ROWID
"""
_TABLE_FILE = "answers.sqlite"
_OUTPUT: msgspec.json.Decoder[Output] = msgspec.json.Decoder(Output)


class BatchFiles:
    """The files of a pipeline's runs in storage.

    Parameters
    ----------
    storage, pipeline
        Where, and the pipeline's name.
    """

    def __init__(self, storage: Storage, pipeline: str) -> None:
        self._storage = storage
        self._folder = ("batch", pipeline)

    def address(self, run: str) -> str:
        """Return the address of a run's folder, for any reader of Parquet."""
        return self._storage.address(*self._folder, run)

    def write_part(self, run: str, part: int, frame: pl.DataFrame) -> None:
        """Write a part of a run, whole and synced.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        content = BytesIO()
        frame.write_parquet(content)
        self._storage.write(content.getvalue(), *self._folder, run, _part(part))

    def read_part(self, run: str, part: int) -> pl.DataFrame:
        """Read a part of a run.

        Raises
        ------
        StorageError
            If it cannot be read.
        """
        content = self._storage.read(*self._folder, run, _part(part))
        try:
            return pl.read_parquet(BytesIO(content))
        except pl.exceptions.PolarsError as error:
            raise StorageError(
                f"{self.address(run)}/{_part(part)} is damaged: {str(error).splitlines()[0][:150]}",
                hint="restore it from a copy, then run headwater batch predict again",
            ) from error

    def write_table(self, run: str, file: Path) -> None:
        """Write the table for look-ups by key.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        self._storage.put(file, *self._folder, run, _TABLE_FILE)

    def fetch_table(self, run: str, file: Path) -> None:
        """Copy the table for look-ups to a local file.

        Raises
        ------
        StorageError
            If it cannot be reached or written.
        """
        self._storage.fetch(file, *self._folder, run, _TABLE_FILE)

    def remove(self, run: str) -> None:
        """Remove all files of a run.

        Raises
        ------
        StorageError
            If they cannot be removed.
        """
        self._storage.remove(*self._folder, run)


class TableWriter:
    """The writer of the table for look-ups by key, in a ``with`` block that removes the file at its end.

    Parameters
    ----------
    path
        A local file; what is there is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._connection = sqlite3.connect(self.path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -64000"):
            self._connection.execute(f"PRAGMA {pragma}")  # a file that is not whole is made anew
        self._connection.execute(_SCHEMA)
        self._connection.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self.path.unlink(missing_ok=True)

    def add(self, keys: Sequence[str], outputs: Sequence[Output]) -> None:
        """Append answers to the table.

        Raises
        ------
        SchemaError
            If a key was there.
        StorageError
            If the disk refuses.
        """
        first, texts = self.rows, [msgspec.json.encode(output).decode() for output in outputs]
        rows = list(zip(keys, range(first, first + len(keys)), texts, strict=True))
        before = self._connection.total_changes
        try:
            self._connection.executemany("INSERT OR IGNORE INTO answer VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise _refused(self.path, error) from error
        self.rows += len(keys)
        if self._connection.total_changes - before < len(keys):
            raise SchemaError(
                f"key {self._twice(rows)!r} comes twice", hint="give each entity one row of the table"
            )

    def finish(self) -> bytes:
        """Commit the added answers, and return the file's SHA-256."""
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise _refused(self.path, error) from error
        return sha256_of(self.path)

    def _twice(self, rows: Sequence[tuple[str, int, str]]) -> str:
        query = "SELECT place FROM answer WHERE key = ?"
        for key, place, _ in rows:
            if self._connection.execute(query, (key,)).fetchone() != (place,):
                return key
        return ""


class FoundAnswer(NamedTuple):
    """An answer of a table: the number of its row, and the output."""

    place: int
    output: Output


class AnswerTable:
    """A read-only table for look-ups by key, which any number of processes may have open.

    Parameters
    ----------
    path
        As :class:`TableWriter` made it.

    Raises
    ------
    StorageError
        If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(
                f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            self._connection.execute("SELECT 1 FROM answer LIMIT 1").fetchone()
        except sqlite3.Error as error:
            raise _refused(path, error) from error

    def find(self, key: str) -> FoundAnswer | None:
        """Return a key's answer; None if there is none. Any thread may ask.

        Raises
        ------
        StorageError
            If the file is damaged.
        """
        try:
            with self._lock:
                row = self._connection.execute(
                    "SELECT place, output FROM answer WHERE key = ?", (key,)
                ).fetchone()
        except sqlite3.Error as error:
            raise _refused(self._path, error) from error
        return None if row is None else FoundAnswer(row[0], _OUTPUT.decode(row[1]))

    def close(self) -> None:
        """Close the file; nobody may ask any more."""
        with self._lock:
            self._connection.close()


def sha256_of(path: Path) -> bytes:
    """Hash a file, a piece at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _part(number: int) -> str:
    return f"part-{number:05}.parquet"


def _refused(path: Path, error: Exception) -> StorageError:
    return StorageError(f"{path} cannot be used: {error}", hint="check the disk, then run it again")
