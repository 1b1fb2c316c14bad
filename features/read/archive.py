"""The archive: Delta tables of predictions, labels and examples, written after the fact by range.

Every append carries Delta's application transaction with the range's stop, and is tried against
exactly the table version that was read, so that a range is there once however often it is collected.
A table bears its log's id, as its description and as the id of those transactions; another log's is
neither read nor written.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Literal

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from polars.exceptions import PolarsError

from headwater.infra.commit_points import reached
from headwater.infra.store.identity import Claim, Identity
from headwater.infra.store.storage import Storage
from headwater.spec.errors import ConflictError, HeadwaterError, StorageError, TableError
from headwater.spec.recipe import OffsetRange

__all__ = ["COMPACT_FROM_FILES", "Archive", "Archived"]

COMPACT_FROM_FILES = 256
"""How many files a table has before they are compacted."""

Archived = Literal["predictions", "labels", "examples"]

_KEYS: dict[Archived, str] = {"predictions": "position", "labels": "position", "examples": "offset"}
_ACROSS_SCHEMAS = pl.ScanCastOptions(missing_struct_fields="insert", extra_struct_fields="ignore")


class Archive:
    """One pipeline's tables below the storage root.

    Parameters
    ----------
    storage
        The root.
    identity
        The log; its pipeline's name is the folder of the tables.
    compact_from_files
        How many files a table has at least before they are compacted.

    Attributes
    ----------
    claim
        The log's claim to that folder; whoever writes something else of the log to storage takes it.
    """

    def __init__(
        self, storage: Storage, identity: Identity, *, compact_from_files: int = COMPACT_FROM_FILES
    ) -> None:
        self._compact_from_files = compact_from_files
        self.claim = Claim(storage, identity)
        self._storage = storage
        self._identity = identity
        self._pipeline = identity.pipeline
        self._app = f"headwater/{identity.log}"
        self._open: dict[Archived, DeltaTable] = {}
        self._prepared = False

    def address(self, name: Archived) -> str:
        """Return a table's address, for any reader of Delta Lake."""
        return self._storage.address("tables", self._pipeline, name)

    def check(self) -> None:
        """Refuse tables of another log, and a storage on which another log has claimed the name.

        Whatever else is wrong is left to whoever reads or writes.

        Raises
        ------
        IdentityError
            If there are such.
        """
        for name in _KEYS:
            if name not in self._open:
                with suppress(TableError, StorageError):
                    self._table(name)

    def stop(self, name: Archived) -> int:
        """Return the offset or position up to which a table is written.

        Raises
        ------
        IdentityError
            If the table belongs to another log.
        TableError
            If the table is corrupt.
        StorageError
            If storage is away.
        """
        table = self._table(name)
        if table is None:
            return 0
        with self._guarded(name):
            return table.transaction_version(self._app) or 0

    def newest(self, name: Archived, stop: int) -> int | None:
        """Return the offset or position of the newest row below `stop`, by the files' statistics.

        Raises
        ------
        IdentityError, TableError, StorageError
            As for :meth:`stop`.
        """
        table = self._table(name)
        if table is None or stop <= 0:
            return None
        if name == "examples":
            return stop - 1  # each offset has its row
        with self._guarded(name):
            files = pl.DataFrame(table.get_add_actions(flatten=True))
            last = files[f"max.{_KEYS[name]}"].max() if files.height else None
        return int(last) if isinstance(last, int) and last < stop else None

    def append(self, name: Archived, frame: pl.DataFrame, start: int, stop: int) -> None:
        """Write the rows of one range, as one commit.

        Parameters
        ----------
        name
            Which table.
        frame
            The range's rows, in order.
        start, stop
            The range; `start` must be where the table stops.

        Raises
        ------
        ConflictError
            If another process wrote to the table since it was read.
        IdentityError, TableError, StorageError
            As for :meth:`stop`; the table is then what it was.
        """
        table = self._table(name)
        end = 0 if table is None else table.transaction_version(self._app) or 0
        if end != start:
            raise ConflictError(
                f"table {name!r} of {self._pipeline!r} stops at {end}, not at {start}",
                hint="collect again: another process has written this range",
            )
        commit = CommitProperties(app_transactions=[Transaction(self._app, stop)], max_commit_retries=0)
        with self._guarded(name):
            reached("collect.before_append")
            if table is None:
                self.claim.take()
                write_deltalake(
                    self.address(name),
                    frame,
                    mode="error",
                    description=self._identity.description,
                    storage_options=self._storage.options,
                    commit_properties=commit,
                    configuration={"delta.dataSkippingStatsColumns": _KEYS[name]},
                )
            else:
                write_deltalake(
                    table, frame, mode="append", schema_mode="merge", commit_properties=commit
                )
            reached("collect.after_append")
        if table is not None and len(table.file_uris()) >= self._compact_from_files:
            self._compact(name)

    def read(
        self, name: Archived, offsets: OffsetRange, schema: Mapping[str, pl.DataType]
    ) -> pl.DataFrame:
        """Read a range, opening only the files that hold it.

        Parameters
        ----------
        name
            Which table.
        offsets
            The offsets (or positions).
        schema
            The columns to give, with their types. What a file does not have is null: a feature, say,
            that was declared later.

        Returns
        -------
        polars.DataFrame
            One row an offset (or position), rising.

        Raises
        ------
        TableError
            If the table is corrupt, or an offset of the range is not there.
        StorageError
            If storage is away.
        """
        key = _KEYS[name]
        table = self._table(name)
        if table is None:
            raise TableError(
                f"table {name!r} of {self._pipeline!r} does not exist", hint="run headwater collect"
            )
        with self._guarded(name):
            files = pl.DataFrame(table.get_add_actions(flatten=True))
            files = files.filter(
                (pl.col(f"max.{key}") >= offsets.start) & (pl.col(f"min.{key}") < offsets.stop)
            )
            paths = [f"{self.address(name)}/{path}" for path in files["path"]]
            if not paths:
                raise self._missing(name, offsets, 0)
            frame = self._scan(name, paths, offsets, schema)
        if name == "examples" and not frame[key].equals(
            pl.Series(key, range(offsets.start, offsets.stop))
        ):
            raise self._missing(name, offsets, frame[key].n_unique())
        return frame

    def _scan(
        self,
        name: Archived,
        paths: Sequence[str],
        offsets: OffsetRange,
        schema: Mapping[str, pl.DataType],
    ) -> pl.DataFrame:
        key = _KEYS[name]
        files = pl.scan_parquet(
            list(paths),
            schema={key: pl.Int64(), **schema},
            storage_options=self._storage.reader_options_for(self._storage.root),
            missing_columns="insert",
            extra_columns="ignore",
            cast_options=_ACROSS_SCHEMAS,
        )
        within = pl.col(key).is_between(offsets.start, offsets.stop, closed="left")
        try:
            return files.filter(within).collect().sort(key)
        except PolarsError as error:
            if len(paths) == 1 and not _is_network(str(error)):
                raise TableError(
                    f"table {name!r} of {self._pipeline!r} cannot be read: {paths[0]} is damaged",
                    hint="restore that file from a copy; the log itself is in the database",
                ) from error
            for path in () if len(paths) == 1 else paths:
                self._scan(name, [path], offsets, schema)  # raises for the one that is damaged
            raise

    def _missing(self, name: Archived, offsets: OffsetRange, count: int) -> TableError:
        return TableError(
            f"table {name!r} of {self._pipeline!r} holds {count} of the {len(offsets)} offsets "
            f"{offsets}",
            hint=f"restore the files of {self.address(name)}; nothing is trained over this range",
        )

    def _table(self, name: Archived) -> DeltaTable | None:
        """Open a table, or bring the open one up to date; None if there is none yet."""
        with self._guarded(name):
            if name in self._open:
                self._open[name].update_incremental()
                return self._open[name]
            if not self._prepared:
                self._storage.prepare()
                self.claim.check()
                self._prepared = True
            try:
                table = DeltaTable(self.address(name), storage_options=self._storage.options)
            except TableNotFoundError:
                return None
            self._identity.check_table(name, self.address(name), table.metadata().description)
            self._open[name] = table
            return table

    def _compact(self, name: Archived) -> None:
        with self._guarded(name):
            self._open.pop(name, None)  # an object older than a schema change cannot compact
            fresh = DeltaTable(self.address(name), storage_options=self._storage.options)
            fresh.optimize.compact()
            fresh.create_checkpoint()

    @contextmanager
    def _guarded(self, name: Archived) -> Iterator[None]:
        try:
            yield
        except HeadwaterError:
            raise
        except CommitFailedError as error:
            self._open.pop(name, None)
            raise ConflictError(
                f"another process wrote table {name!r} of {self._pipeline!r} at the same time",
                hint="collect again",
            ) from error
        except (DeltaError, PolarsError, OSError, ValueError) as error:
            self._open.pop(name, None)
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            if self._storage.is_s3 and _is_network(first):
                raise StorageError(
                    f"storage at {self._storage.root} does not answer: {first[:200]}",
                    hint="check that the service runs and HEADWATER_S3_ENDPOINT; nothing was lost",
                ) from error
            raise TableError(
                f"table {name!r} at {self.address(name)} cannot be read: {first[:200]}",
                hint="restore the named file from a copy; the log itself is in the database",
            ) from error


def _is_network(text: str) -> bool:
    return any(word in text for word in ("Generic S3 error", "error sending request", "retries"))
