"""Archiving: the sequenced records are written to the archive's tables, range by range."""

from contextlib import suppress

import polars as pl

from headwater.features.identity.kept_log import KeptLog, keep, read_log
from headwater.features.read.archive import Archived
from headwater.features.read.log_reader import LogReader
from headwater.features.read.same_rows import frame_of
from headwater.infra.commit_points import reached
from headwater.spec.errors import DamagedError, StorageError, TableError

__all__ = ["ArchiveWriter"]

_CHUNK = 50_000


class ArchiveWriter:
    """Writes what is sequenced, and not in the archive yet.

    Parameters
    ----------
    log
        Whose records, and whose archive.
    """

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._kept: KeptLog | None = None

    def check(self) -> None:
        """Refuse an archive of another log, or one that a copy of the home went on with.

        Whatever else is wrong is left to whoever reads or writes.

        Raises
        ------
        IdentityError
            If it is.
        """
        self._log.archive.check()
        with suppress(TableError, StorageError):
            self._log.same_rows.check_all(self._log.frames)

    def write(self) -> int:
        """Write all tables up to what is sequenced now, and return how many examples were written.

        What the tables do not tell is left beside them, at the end.

        Raises
        ------
        ConflictError, IdentityError, TableError, StorageError
            As for :meth:`headwater.features.log.FeatureLog.collect`.
        """
        kept = read_log(self._log.database, self._log.pipeline_id)
        counts = [self._write("predictions", kept.position), self._write("labels", kept.position)]
        reached("collect.between_tables")
        counts.append(self._write("examples", kept.offset))
        if kept.position and kept != self._kept and min(counts) >= 0:
            log = self._log
            keep(kept, log.database, log.pipeline_id, log.pipeline.name, log.archive.storage)
            self._kept = kept
        return max(0, counts[-1])

    def _write(self, name: Archived, stop: int) -> int:
        """Write a table up to `stop`; return the places written, below 0 if another process went on."""
        log = self._log
        first = start = log.same_rows.check(name, log.frames)
        if start > stop:  # unless another process sequenced and archived just now
            log.same_rows.check_behind(name, start)
            return stop - start
        while start < stop:
            end = min(start + _CHUNK, stop)
            log.archive[name].append(self._frame(name, start, end), start, end)
            log.same_rows.written(name, end)
            start = end
        return stop - first

    def _frame(self, name: Archived, start: int, stop: int) -> pl.DataFrame:
        """Return the rows to write; damaged examples that people quarantined are left out."""
        log = self._log
        try:
            return frame_of(name, log.repository, log.frames, start, stop)
        except DamagedError as error:
            without = log.quarantined(start, stop)
            if not set(without).issuperset(error.places):
                raise
            return frame_of(name, log.repository, log.frames, start, stop, without)
