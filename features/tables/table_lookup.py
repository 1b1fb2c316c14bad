"""A materialised table as one read-only SQLite file: a row an entity key, found without any dataframe.

The processes of a service share its pages. A file is written whole, under a new name, and never changed.
"""

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from headwater.features.record.fields import type_of
from headwater.spec.data.feature import BatchFeature
from headwater.spec.data.records import FeatureValue
from headwater.spec.errors import HeadwaterError, StorageError, TableError

__all__ = ["FoundRow", "TableLookup", "write_lookup"]

_MAPPED_BYTES = 2_000_000_000
_ENCODER = msgspec.json.Encoder()


class _About(msgspec.Struct, frozen=True):
    entity: tuple[str, ...]
    features: tuple[BatchFeature, ...]


class FoundRow(NamedTuple):
    """The row of a table for a key.

    Parameters
    ----------
    values
        By feature.
    at_us
        When they were true, in microseconds since 1970, UTC; None if the source does not say.
    """

    values: dict[str, FeatureValue]
    at_us: int | None


def write_lookup(
    path: Path,
    entity: Sequence[str],
    features: Sequence[BatchFeature],
    rows: Iterable[tuple[Sequence[str], int | None, Sequence[FeatureValue]]],
) -> None:
    """Write a table to a new file; synced when this returns.

    Parameters
    ----------
    path
        Where to; nothing is there yet.
    entity, features
        Names of the entity keys, and the features, in the order of the rows' parts.
    rows
        Key, time in microseconds (or None), values; a key comes once.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    names = [feature.name for feature in features]
    about = _ENCODER.encode(_About(tuple(entity), tuple(features)))
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = OFF")  # a file that is not whole is never used
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            connection.execute("CREATE TABLE about (about BLOB NOT NULL) STRICT")
            connection.execute("INSERT INTO about VALUES (?)", (about,))
            connection.execute(
                "CREATE TABLE value (key TEXT PRIMARY KEY, at_us INTEGER, features BLOB NOT NULL) "
                "STRICT, WITHOUT ROWID"
            )
            connection.executemany(
                "INSERT INTO value VALUES (?, ?, ?)",
                (
                    (_text(key), at_us, _ENCODER.encode(dict(zip(names, values, strict=True))))
                    for key, at_us, values in rows
                ),
            )
            connection.execute("COMMIT")
        finally:
            connection.close()
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except (sqlite3.Error, OSError) as error:
        raise StorageError(
            f"{path} cannot be written: {error}", hint="check the disk, then materialise again"
        ) from error


class TableLookup:
    """An open table for look-ups by entity key.

    Used by one thread at a time; any may close it.

    Parameters
    ----------
    path
        As :func:`write_lookup` wrote it.
    entity, features
        What is to be found by which keys. The file may hold more features.

    Raises
    ------
    StorageError
        If the file cannot be opened.
    TableError
        If it was written for other keys, or for features of another type.
    """

    def __init__(self, path: Path, entity: Sequence[str], features: Sequence[BatchFeature]) -> None:
        self._path = path
        self._whole = len(entity) == 1
        kind = msgspec.defstruct("Row", [(f.name, type_of(f, ranged=False)) for f in features])
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)
        address = f"file:{quote(str(path))}?mode=ro&immutable=1"
        try:
            self._connection = sqlite3.connect(
                address, uri=True, isolation_level=None, check_same_thread=False
            )
            self._connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES:d}")
            ((about,),) = self._connection.execute("SELECT about FROM about").fetchall()
            written = msgspec.json.decode(about, type=_About)
        except (sqlite3.Error, msgspec.DecodeError, ValueError) as error:
            raise self._damaged(error) from error
        self._check(written, tuple(entity), features)

    def find(self, key: Sequence[str]) -> FoundRow | None:
        """Return the row of a key; None if the table lacks the key.

        Parameters
        ----------
        key
            A text for each entity key, in the table's order.

        Raises
        ------
        StorageError
            If the file is damaged.
        """
        try:
            row = self._connection.execute(
                "SELECT at_us, features FROM value WHERE key = ?",
                (key[0] if self._whole else _text(key),),
            ).fetchone()
            if row is None:
                return None
            return FoundRow(msgspec.structs.asdict(self._decoder.decode(row[1])), row[0])
        except UnicodeEncodeError:
            return None  # half of a surrogate pair: no source has it
        except (sqlite3.Error, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._damaged(error) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _check(self, written: _About, entity: tuple[str, ...], features: Sequence[BatchFeature]) -> None:
        stored = {feature.name: feature for feature in written.features}
        lacking = [
            declared.name
            for declared in features
            if (known := stored.get(declared.name)) is None
            or known.dtype != declared.dtype
            or (known.nullable and not declared.nullable)
        ]
        if lacking or written.entity != entity:
            self.close()
            raise TableError(
                f"the table was materialised for {', '.join(written.entity)}, without "
                f"{', '.join(lacking) or 'the keys that are declared now'} as declared now",
                hint="materialise it again: headwater features materialise",
            )

    def _damaged(self, error: Exception) -> HeadwaterError:
        return StorageError(
            f"{self._path} cannot be read: {error}",
            hint="materialise the table again: headwater features materialise",
        )


def _text(key: Sequence[str]) -> str:
    return key[0] if len(key) == 1 else _ENCODER.encode(key).decode()
