"""The tables that are looked up, as files: published by the keeper, followed by every worker.

``live/PIPELINE/tables.json`` below the home folder, replaced whole, says which materialisation of each
table is in force; their files are beside it.
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
    """The folder of what is looked up for one pipeline.

    Parameters
    ----------
    pipeline, settings
        Whose, and where the home folder is.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._home = HomeLog(pipeline.name, settings)
        folder = settings.root / "live" / pipeline.name
        self._folder = folder / "tables"
        self._file = folder / "tables.json"

    def publish(
        self, wanted: dict[str, Materialised], fetch: Callable[[Materialised, Path], None]
    ) -> None:
        """Say which materialisations are in force; workers follow within a moment.

        Parameters
        ----------
        wanted
            By table.
        fetch
            Puts the file of one at a place, whole or not at all.

        Raises
        ------
        IdentityError
            If the folder belongs to another log; it stays as it is then.
        StorageError, DigestError
            If a file cannot be had; what was published before stays then.
        """
        self._home.check(self._file)
        self._folder.mkdir(parents=True, exist_ok=True)
        for one in wanted.values():
            if not self._path(one).exists():
                fetch(one, self._path(one))
        draft = self._file.with_name(f"{self._file.name}.new")
        draft.write_bytes(self._home.wrap(msgspec.json.encode(wanted)))
        draft.replace(self._file)
        self._remove_old({self._path(one) for one in wanted.values()})

    def stamp(self) -> tuple[int, int]:
        """Give what changes whenever something is published; zeros before the first time."""
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino  # two may be published in one tick of the clock

    def read(self) -> dict[str, Materialised]:
        """Give what is in force, by table; empty where nothing was published yet.

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

    def open(self, table: FeatureTable, one: Materialised) -> TableLookup:
        """Open a table.

        Raises
        ------
        StorageError, TableError
            As :class:`~headwater.features.tables.table_lookup.TableLookup` does.
        """
        return TableLookup(self._path(one), table.entity, self._pipeline.features_of(table.name))

    def _path(self, one: Materialised) -> Path:
        return self._folder / f"{one.table}-{one.sha256[:32]}.sqlite"

    def _remove_old(self, named: set[Path]) -> None:
        """Remove files that nobody is about to open; a worker that has one open keeps it."""
        for table in self._pipeline.tables:
            files = sorted(
                self._folder.glob(f"{table.name}-*.sqlite"), key=lambda f: f.stat().st_mtime_ns
            )
            for old in [file for file in files if file not in named][:-_KEPT]:
                old.unlink(missing_ok=True)
