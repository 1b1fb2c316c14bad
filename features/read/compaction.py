"""Compaction of a table of the archive: many small files become few; what they replace is removed."""

from datetime import timedelta

import polars as pl
from deltalake import DeltaTable

from headwater.features.read.file_seals import SealedFiles

__all__ = ["KEEP_REPLACED", "Compaction", "sizes_of"]

KEEP_REPLACED = timedelta(hours=1)
"""How long replaced files stay, for readers that listed them before."""


class Compaction:
    """The compaction of one table.

    A recipe names offsets, and no file: what reads a table needs the files that it has listed.
    Files that were replaced stay for a while for readers that have listed them, and are then removed.

    Parameters
    ----------
    address, options
        Where the table is.
    files
        Its files and their seals.
    from_files
        How many files it has at least before they are compacted.
    keep_replaced
        How long the replaced ones stay.
    """

    def __init__(
        self,
        address: str,
        options: dict[str, str],
        files: SealedFiles,
        from_files: int,
        keep_replaced: timedelta,
    ) -> None:
        self._address = address
        self._options = options
        self._files = files
        self._from_files = from_files
        self._keep_replaced = keep_replaced

    def after_append(self, table: DeltaTable) -> bool:
        """Seal what was appended, compact if it is due, and remove what was replaced a while ago.

        Returns
        -------
        bool
            Whether the table was compacted or cleared, so that it must be opened anew.
        """
        paths = list(sizes_of(table))
        self._files.seal_new(paths)
        if len(paths) >= self._from_files and not self._files.damaged(paths):
            fresh = self._fresh()  # an object older than a schema change cannot compact
            before = list(sizes_of(fresh))
            fresh.optimize.compact()
            self._files.replace(before, list(sizes_of(fresh)))
            fresh.create_checkpoint()
            return True
        return self._files.remove_replaced(self._keep_replaced.total_seconds(), self._vacuum)

    def _vacuum(self) -> None:
        hours = int(self._keep_replaced / timedelta(hours=1))
        self._fresh().vacuum(hours, dry_run=False, enforce_retention_duration=False)

    def _fresh(self) -> DeltaTable:
        return DeltaTable(self._address, storage_options=self._options)


def sizes_of(table: DeltaTable, column: str = "size_bytes") -> dict[str, int]:
    """Return the sizes of a table's files, in bytes or in ``num_records``, by path below its folder."""
    files = pl.DataFrame(table.get_add_actions(flatten=True))
    return dict(files.select("path", column).rows())
