"""One Delta table of the archive, read and appended to by range.

Every append carries Delta's application transaction with the range's stop, and is tried against
exactly the table version that was read, so that a range is there once however often it is collected.
A table bears its log's id, as its description and as the id of those transactions; another log's is
neither read nor written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from polars.exceptions import PolarsError

from headwater.features.read.compaction import Compaction, sizes_of
from headwater.features.read.file_seals import SealedFiles
from headwater.infra.commit_points import reached
from headwater.infra.store.identity import Claim, Identity
from headwater.infra.store.local_storage import LocalStorage, refusal_of
from headwater.infra.store.s3_storage import S3Storage
from headwater.infra.store.storage import Storage
from headwater.spec.errors import ConflictError, HeadwaterError, StorageError, TableError
from headwater.spec.recipe import OffsetRange

__all__ = ["ArchiveTable", "check_files"]

_ACROSS_SCHEMAS = pl.ScanCastOptions(missing_struct_fields="insert", extra_struct_fields="ignore")


class ArchiveTable:
    """One table of a log.

    Parameters
    ----------
    name, key
        Its name, and the column by which rows rise: ``"position"``, or ``"offset"``, which has no gaps.
    storage, identity, claim
        Where it is, whose it is, and the log's claim, which is taken before the table is made.
    prepare
        Called before it is opened first.
    care
        Its files with their seals, and their compaction; None checks and compacts nothing.

    Attributes
    ----------
    address, files
        For any reader of Delta Lake; its files with their seals.
    """

    def __init__(
        self,
        name: str,
        key: str,
        storage: Storage,
        identity: Identity,
        claim: Claim,
        prepare: Callable[[], None],
        care: tuple[SealedFiles, Compaction] | None,
    ) -> None:
        self.address = storage.address("tables", identity.pipeline, name)
        self.files = None if care is None else care[0]
        self._name = name
        self._at = f"table {name!r} at {self.address}"
        self._named = f"table {name!r} of {identity.pipeline!r}"
        self._key = key
        self._storage = storage
        self._identity = identity
        self._claim = claim
        self._prepare = prepare
        self._compaction = None if care is None else care[1]
        self._app = f"headwater/{identity.log}"
        self._open: DeltaTable | None = None

    @property
    def is_open(self) -> bool:
        """Whether this process has found it, and found that it is the log's."""
        return self._open is not None

    def stop(self) -> int:
        """Return the offset or position up to which it is written.

        Raises
        ------
        IdentityError
            If it belongs to another log.
        TableError
            If it is corrupt.
        StorageError
            If storage is away.
        """
        table = self._table()
        if table is None:
            return 0
        with self._guarded():
            return table.transaction_version(self._app) or 0

    def newest(self, stop: int) -> int | None:
        """Return the offset or position of the newest row below `stop`, by the files' statistics.

        Raises
        ------
        IdentityError, TableError, StorageError
            As for :meth:`stop`.
        """
        table = self._table()
        if table is None or stop <= 0:
            return None
        if self._key == "offset":
            return stop - 1
        with self._guarded():
            files = pl.DataFrame(table.get_add_actions(flatten=True))
            last = files[f"max.{self._key}"].max() if files.height else None
        return int(last) if isinstance(last, int) and last < stop else None

    def append(self, frame: pl.DataFrame, start: int, stop: int) -> None:
        """Write the rows of one range, in order, as one commit; `start` must be where the table stops.

        Raises
        ------
        ConflictError
            If another process wrote to the table since it was read.
        IdentityError, TableError, StorageError
            As for :meth:`stop`; the table is then what it was.
        """
        table = self._table()
        end = 0 if table is None else table.transaction_version(self._app) or 0
        if end != start:
            raise ConflictError(
                f"{self._named} stops at {end}, not at {start}",
                hint="collect again: another process has written this range",
            )
        commit = CommitProperties(app_transactions=[Transaction(self._app, stop)], max_commit_retries=0)
        with self._guarded():
            reached("collect.before_append")
            if table is None:
                self._make(frame, commit)
            else:
                write_deltalake(
                    table, frame, mode="append", schema_mode="merge", commit_properties=commit
                )
            reached("collect.after_append")
        table = self._table()
        if table is not None and self._compaction is not None:
            with self._guarded():
                if self._compaction.after_append(table):
                    self._open = None

    def read(self, offsets: OffsetRange, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """Read a range, opening only the files that hold it.

        Parameters
        ----------
        offsets, schema
            The offsets (or positions), and the columns to give, with their types. What a file does not
            have is null: a feature, say, that was declared later.

        Returns
        -------
        polars.DataFrame
            One row an offset (or position), rising.

        Raises
        ------
        IdentityError, TableError, StorageError
            As for :meth:`stop`; TableError also if an offset of the range is not there.
        """
        key, table = self._key, self._table()
        if table is None:
            raise TableError(f"{self._named} does not exist", hint="run headwater collect")
        held = (pl.col(f"max.{key}") >= offsets.start) & (pl.col(f"min.{key}") < offsets.stop)
        with self._guarded():
            files = pl.DataFrame(table.get_add_actions(flatten=True)).filter(held)
            paths = [f"{self.address}/{path}" for path in files["path"]]
            if not paths and key == "offset":
                raise _missing(self._named, self.address, offsets, 0)
            if self.files is not None:
                check_files(self._named, self.address, self.files, files, key)
            options = self._storage.reader_options_for(self._storage.root)
            if not paths:
                return pl.DataFrame(schema={key: pl.Int64(), **schema})
            within = pl.col(key).is_between(offsets.start, offsets.stop, closed="left")
            of_files = {key: pl.Int64(), **schema}
            frame = _scan(self._named, paths, within, of_files, options).sort(key)
        if key == "offset" and not frame[key].equals(pl.Series(key, range(offsets.start, offsets.stop))):
            raise _missing(self._named, self.address, offsets, frame[key].n_unique())
        return frame

    def list_files(self, column: str = "size_bytes") -> dict[str, int]:
        """Return the sizes of its files, by path below its folder; none if there is no table yet."""
        table = self._table()
        with self._guarded():
            return {} if table is None else sizes_of(table, column)

    def _table(self) -> DeltaTable | None:
        """Open a table, or bring the open one up to date; None if there is none yet."""
        with self._guarded():
            if self._open is not None:
                self._open.update_incremental()
                return self._open
            self._prepare()
            try:
                table = DeltaTable(self.address, storage_options=self._storage.options)
            except TableNotFoundError:
                return None
            self._identity.check_table(self._name, self.address, table.metadata().description)
            self._open = table
            return table

    def _make(self, frame: pl.DataFrame, commit: CommitProperties) -> None:
        self._claim.take()
        write_deltalake(
            self.address,
            frame,
            mode="error",
            description=self._identity.description,
            storage_options=self._storage.options,
            commit_properties=commit,
            configuration={"delta.dataSkippingStatsColumns": self._key},
        )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except HeadwaterError:
            raise
        except (DeltaError, PolarsError, OSError, ValueError) as error:
            self._open = None
            raise _refusal(error, self._named, self._at, self._storage) from error


def _missing(named: str, address: str, offsets: OffsetRange, count: int) -> TableError:
    return TableError(
        f"{named} holds {count} of the {len(offsets)} offsets {offsets}",
        hint=f"write {address} anew from the database: headwater doctor --repair",
    )


def _refusal(error: Exception, named: str, at: str, storage: Storage) -> HeadwaterError:
    if isinstance(error, CommitFailedError):
        return ConflictError(f"another process wrote {named} at the same time", hint="collect again")
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(storage, S3Storage) and _is_network(first):
        return StorageError(
            f"storage at {storage.root} does not answer: {first[:200]}",
            hint="check that the service runs and HEADWATER_S3_ENDPOINT; nothing was lost",
        )
    refusal = refusal_of(Path(storage.root)) if isinstance(storage, LocalStorage) else None
    if refusal is not None:
        return StorageError(
            f"{at} cannot be written: {refusal}",
            hint="check the disk, then try again; the records are in the database",
        )
    return TableError(
        f"{at} cannot be read: {first[:200]}",
        hint="write the table anew from the database: headwater doctor --repair",
    )


def _is_network(text: str) -> bool:
    return any(word in text for word in ("Generic S3 error", "error sending request", "retries"))


def check_files(named: str, address: str, sealed: SealedFiles, files: pl.DataFrame, key: str) -> None:
    """Refuse files that are not what was written.

    Parameters
    ----------
    named, address, sealed
        The table, and its files.
    files
        Delta's record of each file.
    key
        The column by which rows rise.

    Raises
    ------
    TableError
        If there are such; it names the first, and the range that it holds.
    """
    damaged = sealed.damaged(files["path"].to_list())
    if damaged:
        (row,) = files.filter(pl.col("path") == damaged[0]).iter_rows(named=True)
        raise TableError(
            f"{named} cannot be read: {address}/{damaged[0]}, which holds "
            f"[{row[f'min.{key}']}, {row[f'max.{key}'] + 1}), is damaged",
            hint="write the table anew from the database: headwater doctor --repair",
        )


def _scan(
    named: str,
    paths: Sequence[str],
    within: pl.Expr,
    schema: Mapping[str, pl.DataType],
    options: dict[str, str] | None,
) -> pl.DataFrame:
    """Read the rows of files that are within; the error names the file that is damaged."""
    files = pl.scan_parquet(
        list(paths),
        schema=dict(schema),
        storage_options=options,
        missing_columns="insert",
        extra_columns="ignore",
        cast_options=_ACROSS_SCHEMAS,
    )
    try:
        return files.filter(within).collect()
    except PolarsError as error:
        if len(paths) == 1 and not _is_network(str(error)):
            raise TableError(
                f"{named} cannot be read: {paths[0]} is damaged",
                hint="write the table anew from the database: headwater doctor --repair",
            ) from error
        for path in () if len(paths) == 1 else paths:
            _scan(named, [path], within, schema, options)  # raises for the one that is damaged
        raise
