"""The archive: Delta tables of predictions, labels and examples, written after the fact by range."""

from contextlib import suppress
from typing import Literal

from headwater.features.read.archive_table import ArchiveTable
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
        self.claim = Claim(storage, identity)
        self._storage = storage
        self._prepared = False
        self._tables = {
            name: ArchiveTable(
                name, key, storage, identity, self.claim, self._prepare, compact_from_files
            )
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
            self._storage.prepare()
            self.claim.check()
            self._prepared = True
