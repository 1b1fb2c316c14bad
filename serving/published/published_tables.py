"""The tables of batch features, as files: the keeper publishes them, every worker follows.

``live/PIPELINE/tables.json`` below the home folder, which is replaced whole, names the materialisation
of each table that is in force. Their files are beside it.
"""

from collections.abc import Callable
from pathlib import Path

from headwater.features.identity.home_log import HomeLog, OwnedFile
from headwater.features.tables.table_lookup import TableLookup
from headwater.infra.settings import Settings
from headwater.spec.data.feature_table import FeatureTable, Materialised
from headwater.spec.pipeline import Pipeline

__all__ = ["PublishedTables"]

_KEPT = 2


class PublishedTables(OwnedFile[dict[str, Materialised]]):
    """The file that names the materialisations in force of one pipeline, and the files of the tables.

    Parameters
    ----------
    pipeline, settings
        The pipeline, and the address of the home folder.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        folder = settings.root / "live" / pipeline.name
        self._folder = folder / "tables"
        hint, home = "start the service again: headwater serve", HomeLog(pipeline.name, settings)
        super().__init__(folder / "tables.json", dict[str, Materialised], hint, home)

    def copy_and_publish(
        self, tables: dict[str, Materialised], fetch: Callable[[Materialised, Path], None]
    ) -> None:
        """Copy the files of materialisations here, and publish that those are in force.

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
        self._home.check(self.path)
        self._folder.mkdir(parents=True, exist_ok=True)
        for table in tables.values():
            if not self._path(table).exists():
                fetch(table, self._path(table))
        self.publish(tables)
        self._remove_old({self._path(table) for table in tables.values()})

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
        """Remove drafts, and files that no worker is about to open; a worker keeps its open file."""
        for table in self._pipeline.tables:
            files = sorted(
                self._folder.glob(f"{table.name}-*.sqlite*"), key=lambda f: f.stat().st_mtime_ns
            )
            for old in [file for file in files if file not in named][:-_KEPT]:
                old.unlink(missing_ok=True)
