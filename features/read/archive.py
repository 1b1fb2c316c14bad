"""The archive: Delta tables of predictions, labels and examples, written after the fact by range."""

from contextlib import suppress
from datetime import timedelta
from typing import Literal

from headwater.features.read.archive_table import ArchiveTable
from headwater.features.read.compaction import KEEP_REPLACED, Compaction
from headwater.features.read.file_seals import FileSeals, SealedFiles
from headwater.infra.store.identity import Claim, Identity
from headwater.infra.store.storage import Storage
from headwater.spec.errors import StorageError, TableError

__all__ = ["COMPACT_FROM_FILES", "Archive", "Archived"]

COMPACT_FROM_FILES = 256
"""How many files a table has before they are compacted."""

Archived = Literal["predictions", "labels", "examples"]

_KEYS: dict[Archived, str] = {"predictions": "position", "labels": "position", "examples": "offset"}


class Archive:
    """One pipeline's tables below the storage root: ``archive["examples"]`` is one of them.

    Parameters
    ----------
    storage
        The root.
    identity
        The log; its pipeline's name is the folder of the tables.
    seals
        The seals of its files; None for a reader that checks none, and writes nothing.
    compact_from_files, keep_replaced
        How many files a table has at least before they are compacted, and how long the files that are
        replaced by that stay.

    Attributes
    ----------
    claim, storage
        The log's claim to that folder; whoever writes something else of the log to storage takes it.
    """

    def __init__(
        self,
        storage: Storage,
        identity: Identity,
        seals: FileSeals | None = None,
        *,
        compact_from_files: int = COMPACT_FROM_FILES,
        keep_replaced: timedelta = KEEP_REPLACED,
    ) -> None:
        self.claim = Claim(storage, identity)
        self.storage = storage
        self._prepared = False

        def care_of(name: Archived) -> tuple[SealedFiles, Compaction] | None:
            if seals is None:
                return None
            place = ("tables", identity.pipeline, name)
            files = SealedFiles(storage, place, seals.of(name))
            address, options = storage.address(*place), storage.options
            return files, Compaction(address, options, files, compact_from_files, keep_replaced)

        self._tables = {
            name: ArchiveTable(name, key, storage, identity, self.claim, self._prepare, care_of(name))
            for name, key in _KEYS.items()
        }

    def __getitem__(self, name: Archived) -> ArchiveTable:
        return self._tables[name]

    def check(self) -> None:
        """Refuse tables of another log, and a storage on which another log has claimed the name.

        Whatever else is wrong is left to whoever reads or writes.

        Raises
        ------
        IdentityError
            If there are such.
        """
        for table in self._tables.values():
            if not table.is_open:
                with suppress(TableError, StorageError):
                    table.stop()

    def _prepare(self) -> None:
        """Make the storage, and check the claim, before the first table is opened."""
        if not self._prepared:
            self.storage.prepare()
            self.claim.check()
            self._prepared = True
