"""Seals of the archive's files: size and checksum of each, kept in the database."""

from collections.abc import Callable, Collection
from zlib import crc32

import msgspec
from sqlalchemy import delete, insert, select, update

from headwater.infra.clock import SystemClock, to_us
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.infra.store.storage import Storage

__all__ = ["FileSeals", "SealedFiles", "TableSeals"]


class FileSeals:
    """The seals of one pipeline's archive.

    Parameters
    ----------
    database, pipeline_id
        Where they are, and whose.
    """

    def __init__(self, database: Database, pipeline_id: int) -> None:
        self._database = database
        self._pipeline_id = pipeline_id

    def of(self, table: str) -> "TableSeals":
        """Return the seals of one table."""
        return TableSeals(self._database, self._pipeline_id, table)


class Seal(msgspec.Struct, frozen=True):
    """Size and checksum of a file, as they were when it was written."""

    size_bytes: int
    checksum: int


class TableSeals:
    """The seals of one table's files, by path below its folder.

    Parameters
    ----------
    database, pipeline_id, table
        Where they are, and of which table.
    """

    def __init__(self, database: Database, pipeline_id: int, table: str) -> None:
        self._database = database
        row = tables.archive_file.c
        self._mine = (row.pipeline_id == pipeline_id) & (row.table_name == table)
        self._key = {"pipeline_id": pipeline_id, "table_name": table}

    def all(self) -> dict[str, Seal]:
        """Return the seals of the files that are read."""
        row = tables.archive_file.c
        query = select(row.path, row.size_bytes, row.checksum).where(
            self._mine, row.replaced_at_us.is_(None)
        )
        with self._database.reading() as connection:
            return {path: Seal(size, checksum) for path, size, checksum in connection.execute(query)}

    def add(self, path: str, seal: Seal) -> None:
        """Keep the seal of a new file."""
        values = {**self._key, "path": path, **msgspec.structs.asdict(seal)}
        with self._database.transaction() as connection:
            same = tables.archive_file.c.path == path
            connection.execute(delete(tables.archive_file).where(self._mine, same))
            connection.execute(insert(tables.archive_file).values(values))

    def replaced(self, paths: Collection[str]) -> None:
        """Note that compaction has replaced files by others."""
        row = tables.archive_file.c
        now_us = to_us(SystemClock().now())  # as Delta's own log has it, whatever clock a test moves
        with self._database.transaction() as connection:
            for path in paths:
                connection.execute(
                    update(tables.archive_file)
                    .where(self._mine, row.path == path)
                    .values(replaced_at_us=now_us)
                )

    def are_replaced_before(self, moment_us: int) -> bool:
        """Return whether files are still there that were replaced before a time."""
        row = tables.archive_file.c
        query = select(row.path).where(self._mine, row.replaced_at_us <= moment_us).limit(1)
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    def forget_replaced(self, moment_us: int) -> None:
        """Forget the files that were replaced before a time: they were removed."""
        with self._database.transaction() as connection:
            connection.execute(
                delete(tables.archive_file).where(
                    self._mine, tables.archive_file.c.replaced_at_us <= moment_us
                )
            )

    def forget_all(self) -> None:
        """Forget all files: the table is written anew."""
        with self._database.transaction() as connection:
            connection.execute(delete(tables.archive_file).where(self._mine))


class SealedFiles:
    """The files of one table of the archive, each held against its seal once a process.

    Parameters
    ----------
    storage, place, seals
        Where the files are, and their seals.
    """

    def __init__(self, storage: Storage, place: tuple[str, ...], seals: TableSeals) -> None:
        self.seals = seals
        self._storage = storage
        self._place = place
        self._checked: set[str] = set()

    def damaged(self, paths: Collection[str], *, again: bool = False) -> list[str]:
        """Return the files that are not what was written; those without a seal are not looked at.

        Parameters
        ----------
        paths
            Which files, below the table's folder.
        again
            Whether to look at those that were whole before.
        """
        due = [path for path in paths if again or path not in self._checked]
        if not due:
            return []
        seals, damaged = self.seals.all(), []
        for path in due:
            if path in seals and self._seal(path) != seals[path]:
                damaged.append(path)
                self._checked.discard(path)
            else:
                self._checked.add(path)
        return damaged

    def seal_new(self, paths: Collection[str]) -> None:
        """Seal the files that have no seal."""
        seals = self.seals.all()
        for path in paths:
            if path not in seals and (seal := self._seal(path)) is not None:
                self.seals.add(path, seal)
                self._checked.add(path)

    def replace(self, before: Collection[str], after: Collection[str]) -> None:
        """Note that files were replaced by others, which are sealed."""
        self.seal_new(after)
        self.seals.replaced(set(before).difference(after))

    def remove_replaced(self, keep_s: float, vacuum: Callable[[], object]) -> bool:
        """Remove files that were replaced a while ago; return whether there were any."""
        moment_us = to_us(SystemClock().now()) - int(keep_s * 1_000_000)
        if not self.seals.are_replaced_before(moment_us):
            return False
        vacuum()
        self.seals.forget_replaced(moment_us)
        return True

    def _seal(self, path: str) -> Seal | None:
        content = self._storage.find(*self._place, *path.split("/"))
        return None if content is None else Seal(len(content), crc32(content))
