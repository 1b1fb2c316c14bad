"""The files of a storage in a backup: each Delta table as it was at one moment, and all else."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from headwater.infra.store.storage import Storage
from headwater.loop.upkeep.manifest import Told
from headwater.spec.errors import StorageError, TableError

__all__ = ["Beyond", "TableEnds", "copy_storage", "load_storage"]

_LOG = "_delta_log"
_DIGITS = 20

Beyond = Callable[[Sequence[dict[str, Any]]], bool | None]
"""Whether a commit, by its actions, is later than the moment; None where it does not say."""


class TableEnds:
    """The moment at which tables are cut: that of the database's copy, which they may have passed.

    Parameters
    ----------
    ends
        For each log's id, the position and the offset at which the database of the backup stops.
    at_ms
        The time of that moment in milliseconds since 1970, for tables that no offset counts.
    """

    def __init__(self, ends: dict[str, tuple[int, int]], at_ms: int) -> None:
        self._ends = {f"headwater/{log}": end for log, end in ends.items()}
        self._at_ms = at_ms

    def of(self, table: str) -> Beyond:
        """Return the rule for a table, by its path below the storage's root."""
        if table.rpartition("/")[2] == "performance":
            return self._is_later
        return lambda actions: self._is_ahead(actions, table.endswith("/examples"))

    def _is_ahead(self, actions: Sequence[dict[str, Any]], examples: bool) -> bool | None:
        for action in actions:
            written = action.get("txn")
            if written is not None and written["appId"] in self._ends:
                return bool(written["version"] > self._ends[written["appId"]][examples])
        return None

    def _is_later(self, actions: Sequence[dict[str, Any]]) -> bool | None:
        for action in actions:
            if "commitInfo" in action and "timestamp" in action["commitInfo"]:
                return bool(action["commitInfo"]["timestamp"] > self._at_ms)
        return None


def copy_storage(
    storage: Storage, names: Sequence[str], target: Path, ends: TableEnds, what: str, told: Told
) -> None:
    """Copy files of a storage to a folder, while others write them.

    Parameters
    ----------
    storage, names
        Where they are, and which: whole tables, and others.
    target, ends
        The folder, and the moment at which tables are cut.
    what, told
        For the progress.

    Raises
    ------
    StorageError
        If the storage cannot be reached, or the folder not be written.
    TableError
        If a table cannot be read.
    """
    tables = sorted({name.partition(f"/{_LOG}/")[0] for name in names if f"/{_LOG}/" in name})
    of_tables = [
        f"{table}/{name}" for table in tables for name in _of_table(storage, table, ends.of(table))
    ]
    others = [name for name in names if not any(name.startswith(f"{table}/") for table in tables)]
    for number, name in enumerate([*of_tables, *others], 1):
        _fetch(storage, target / name, name, may_go=number > len(of_tables))
        told(what, number, len(of_tables) + len(others))


def load_storage(source: Path, names: Sequence[str], storage: Storage, what: str, told: Told) -> None:
    """Put the files of a backup into a storage, each at its path.

    Raises
    ------
    StorageError
        If the storage refuses.
    """
    for number, name in enumerate(names, 1):
        storage.put(source / name, *name.split("/"))
        told(what, number, len(names))


def _of_table(storage: Storage, table: str, beyond: Beyond) -> list[str]:
    """Return the paths of a table's files up to a moment, its log first."""
    log = storage.names(*table.split("/"), _LOG)
    newest = _newest(storage, table, [name for name in log if _is_commit(name)], beyond)
    kept = [name for name in log if name[:_DIGITS].isdigit() and int(name[:_DIGITS]) <= newest]
    if not kept:
        return []
    address = storage.address(*table.split("/"))
    try:
        held = DeltaTable(address, version=newest, storage_options=storage.options).get_add_actions()
    except (DeltaError, OSError) as error:
        raise TableError(
            f"the table at {address} cannot be read: {str(error).splitlines()[0][:200]}",
            hint="mend it first: headwater doctor; or do it again if it was being compacted",
        ) from error
    return [*(f"{_LOG}/{name}" for name in kept), *map(str, held["path"].to_pylist())]


def _newest(storage: Storage, table: str, commits: Sequence[str], beyond: Beyond) -> int:
    """Return the number of a table's last commit up to a moment; -1 if all are later."""
    newest = max((int(name[:_DIGITS]) for name in commits), default=-1)
    for name in sorted(commits, reverse=True):
        content = storage.read(*table.split("/"), _LOG, name)
        later = beyond([msgspec.json.decode(line) for line in content.splitlines() if line])
        if later is False:
            break
        if later:
            newest = int(name[:_DIGITS]) - 1
    return newest


def _is_commit(name: str) -> bool:
    return name[:_DIGITS].isdigit() and name[_DIGITS:] == ".json"


def _fetch(storage: Storage, target: Path, name: str, *, may_go: bool) -> None:
    """Copy a file; one that may go, and was removed since it was listed, is no longer of the storage."""
    target.parent.mkdir(parents=True, exist_ok=True)
    parts = name.split("/")
    try:
        storage.fetch(target, *parts)
    except StorageError:
        target.unlink(missing_ok=True)
        if not may_go or parts[-1] in storage.names(*parts[:-1]):
            raise
