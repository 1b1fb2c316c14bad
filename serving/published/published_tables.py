"""The tables of batch features, as files: the keeper publishes them, every worker follows.

``live/PIPELINE/tables.json`` below the home folder, which is replaced whole, names the materialisation
of each table that is in force. Their files are beside it.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec

from headwater.features.identity.home_log import HomeLog
from headwater.features.tables.table_lookup import TableLookup
from headwater.infra.settings import Settings
from headwater.spec.data.feature_table import FeatureTable, Materialised
from headwater.spec.errors import StorageError
from headwater.spec.pipeline import Pipeline

__all__ = ["PublishedTables"]

_KEPT = 2


class PublishedTables:
    """The folder of the tables of one pipeline.

    Parameters
    ----------
    pipeline, settings
        The pipeline, and the address of the home folder.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._home = HomeLog(pipeline.name, settings)
        folder = settings.root / "live" / pipeline.name
        self._folder = folder / "tables"
        self._file = folder / "tables.json"

    def publish(
        self, tables: dict[str, Materialised], fetch: Callable[[Materialised, Path], None]
    ) -> None:
        """Replace the materialisations in force; workers follow within a moment.

        Parameters
        ----------
        tables
            The materialisations, by table.
        fetch
            Copies the file of a materialisation to a path, whole or not at all.

        Raises
        ------
        IdentityError
            If the folder belongs to another log: it stays as it is.
        StorageError, DigestError
            If a file cannot be copied: the tables published before stay.
        """
        self._home.check(self._file)
        self._folder.mkdir(parents=True, exist_ok=True)
        for table in tables.values():
            if not self._path(table).exists():
                fetch(table, self._path(table))
        draft = self._file.with_name(f"{self._file.name}.new")
        draft.write_bytes(self._home.wrap(msgspec.json.encode(tables)))
        draft.replace(self._file)
        self._remove_old({self._path(table) for table in tables.values()})

    def stamp(self) -> tuple[int, int]:
        """Return a stamp that changes with each publication; zeros before the first."""
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_mtime_ns, status.st_ino  # two may be published in one tick of the clock

    def read(self) -> dict[str, Materialised]:
        """Return the materialisations in force, by table; empty before the first publication.

        Raises
        ------
        IdentityError
            If it was published for another log.
        StorageError
            If the file is damaged.
        """
        try:
            content = self._home.unwrap(self._file.read_bytes(), self._file)
            return msgspec.json.decode(content, type=dict[str, Materialised])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise StorageError(
                f"{self._file} cannot be read: {error}", hint="start the service again: headwater serve"
            ) from error

    def open(self, table: FeatureTable, materialised: Materialised) -> TableLookup:
        """Open a table for look-ups.

        Raises
        ------
        StorageError, TableError
            As :class:`~headwater.features.tables.table_lookup.TableLookup` does.
        """
        return TableLookup(
            self._path(materialised), table.entity, self._pipeline.features_of(table.name)
        )

    def _path(self, table: Materialised) -> Path:
        return self._folder / f"{table.table}-{table.sha256[:32]}.sqlite"

    def _remove_old(self, named: set[Path]) -> None:
        """Remove files that no worker is about to open; a worker keeps a file that it has open."""
        for table in self._pipeline.tables:
            files = sorted(
                self._folder.glob(f"{table.name}-*.sqlite"), key=lambda f: f.stat().st_mtime_ns
            )
            for old in [file for file in files if file not in named][:-_KEPT]:
                old.unlink(missing_ok=True)
