"""The materialisations of each table: rows that are only added, and files in storage."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, func, insert, select

from headwater.infra.clock import from_us, to_us
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.identity import Claim, identity_of
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.published_file import replacing
from headwater.infra.store.schema import tables
from headwater.spec.data.feature_table import Materialised
from headwater.spec.errors import ConflictError, DigestError, StorageError

__all__ = ["Materialisations"]

_KEPT = 3


class Materialisations:
    """The materialisations of one pipeline's tables.

    Parameters
    ----------
    pipeline, pipeline_id
        Whose, and its number in the database.
    database, settings
        Where the rows are, and where the files are.
    """

    def __init__(self, pipeline: str, pipeline_id: int, database: Database, settings: Settings) -> None:
        self._pipeline = pipeline
        self._pipeline_id = pipeline_id
        self._database = database
        self._storage = open_storage(settings)
        self._claim = Claim(self._storage, identity_of(database, pipeline_id))
        self._scratch = settings.root / "materialising"
        row = tables.materialisation.c
        newest = (
            select(row.table_name, func.max(row.number).label("number"))
            .where(row.pipeline_id == pipeline_id)
            .group_by(row.table_name)
            .subquery()
        )
        self._select = select(tables.materialisation).where(row.pipeline_id == pipeline_id)
        self._select_newest = self._select.join(
            newest, (row.table_name == newest.c.table_name) & (row.number == newest.c.number)
        ).order_by(row.table_name)

    def newest(self) -> dict[str, Materialised]:
        """Return the newest materialisation of each table, by its name."""
        with self._database.reading() as connection:
            rows = connection.execute(self._select_newest).all()
        return {row.table_name: _of(row) for row in rows}

    def history(self, table: str) -> list[Materialised]:
        """Return all materialisations of a table, oldest first; the newest three have files."""
        row = tables.materialisation.c
        with self._database.reading() as connection:
            rows = connection.execute(
                self._select.where(row.table_name == table).order_by(row.number)
            ).all()
        return [_of(stored) for stored in rows]

    @contextmanager
    def drafting(self) -> Iterator[Path]:
        """Yield a path for a file that is to be put, and remove its folder at the end.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        try:
            self._scratch.mkdir(exist_ok=True)
            drafts = tempfile.TemporaryDirectory(dir=self._scratch)
        except OSError as error:
            raise StorageError(
                f"cannot write in {self._scratch}: {error.strerror or error}",
                hint="check the disk, then materialise again",
            ) from error
        with drafts as folder:
            yield Path(folder) / "table.sqlite"

    def put(self, table: str, file: Path, read_at: datetime, rows: int, source: str) -> Materialised:
        """Store a file as the newest materialisation of its table.

        Raises
        ------
        ConflictError
            If another process read the source later, and was faster.
        IdentityError
            If the pipeline's name on the storage belongs to another log; nothing is put then.
        StorageError
            If a store refuses; what was the newest stays.
        """
        self._claim.take()
        sha256, row = _sha256(file), tables.materialisation.c
        self._storage.put(file, *self._parts(table, sha256))
        of_table = (row.pipeline_id == self._pipeline_id) & (row.table_name == table)
        with self._database.transaction() as connection:
            number, newest_us = connection.execute(
                select(func.max(row.number), func.max(row.read_at_us)).where(of_table)
            ).one()
            if newest_us is not None and newest_us > to_us(read_at):
                raise ConflictError(
                    f"table {table!r} of {self._pipeline!r} was materialised meanwhile, from a later "
                    "reading of its source",
                    hint="leave it at that one, or materialise again",
                )
            materialised = Materialised(
                table=table,
                number=(number or 0) + 1,
                read_at=read_at,
                rows=rows,
                sha256=sha256,
                source=source,
            )
            connection.execute(
                insert(tables.materialisation).values(
                    pipeline_id=self._pipeline_id,
                    table_name=table,
                    number=materialised.number,
                    read_at_us=to_us(read_at),
                    rows=rows,
                    sha256=sha256,
                    source=source,
                )
            )
        self._remove_old(table)
        return materialised

    def fetch(self, materialised: Materialised, path: Path) -> None:
        """Copy the file of a materialisation out of storage, and verify it.

        Parameters
        ----------
        materialised
            Which.
        path
            Where to; whole there, or not at all.

        Raises
        ------
        IdentityError
            If the pipeline's name on the storage belongs to another log.
        StorageError
            If it cannot be read.
        DigestError
            If it is not what was put.
        """
        self._claim.check()
        with replacing(path) as draft:
            self._storage.fetch(draft, *self._parts(materialised.table, materialised.sha256))
            if _sha256(draft) != materialised.sha256:
                raise DigestError(
                    f"the file of materialisation {materialised.number} of table "
                    f"{materialised.table!r} is not what was written",
                    hint="materialise the table again: headwater features materialise",
                )

    def _remove_old(self, table: str) -> None:
        history = [one.sha256 for one in self.history(table)]
        kept_files = set(history[-_KEPT:])
        for sha256 in set(history[-2 * _KEPT : -_KEPT]) - kept_files:
            with suppress(StorageError):  # it is tried again with the next ones
                self._storage.remove_file(*self._parts(table, sha256))

    def _parts(self, table: str, sha256: str) -> tuple[str, ...]:
        return "features", self._pipeline, table, f"{sha256}.sqlite"


def _of(row: Row[Any]) -> Materialised:
    return Materialised(
        table=row.table_name,
        number=row.number,
        read_at=from_us(row.read_at_us),
        rows=row.rows,
        sha256=row.sha256,
        source=row.source,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
