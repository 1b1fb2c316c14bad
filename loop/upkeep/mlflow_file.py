"""The SQLite file of MLflow: which one it is, and the addresses of states in it."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from headwater.infra.settings import Settings
from headwater.loop.upkeep.sqlite_copy import guarded, only_reading

__all__ = ["elsewhere", "mlflow_file", "readdress"]

_STATES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
_TABLES = (("datasets", "dataset_source"), ("model_version_tags", "value"))
_OURS = "SELECT artifact_location FROM experiments WHERE name LIKE 'headwater/%'"
_THERE = "SELECT count(*) FROM sqlite_master WHERE name = 'experiments'"


def mlflow_file(settings: Settings) -> Path | None:
    """Return the SQLite file that MLflow keeps its records in; None if it keeps them elsewhere."""
    uri = settings.tracking_uri
    path = make_url(uri).database if uri.startswith("sqlite:") else None
    return None if not path else Path(path)


def elsewhere(path: Path, artifacts: str) -> list[str]:
    """Return the places at which MLflow keeps states of pipelines, but for those below an address.

    Raises
    ------
    StorageError
        If the file cannot be read.
    """
    with guarded(path), closing(only_reading(path)) as connection:
        if not connection.execute(_THERE).fetchone()[0]:
            return []
        places = [str(place) for (place,) in connection.execute(_OURS)]
    return sorted(place for place in places if not place.startswith(f"{artifacts.rstrip('/')}/"))


def readdress(path: Path, states: tuple[str, str], tables: tuple[str, str]) -> int:
    """Change the addresses in MLflow's file, in one transaction; return how many were changed.

    Parameters
    ----------
    path
        The file; no process of MLflow may use it meanwhile.
    states, tables
        The old address and the new one: of the states, and of the storage; empty for no change.

    Raises
    ------
    StorageError
        If the file cannot be read or written.
    """
    with guarded(path), closing(sqlite3.connect(path)) as connection, connection:
        changed = sum(_replace(connection, *place, *states) for place in _STATES)
        changed += sum(_replace(connection, *place, *tables) for place in _TABLES)
    return changed


def _replace(connection: sqlite3.Connection, table: str, column: str, old: str, new: str) -> int:
    """Put a new address in the place of an old one, where it is the beginning of a path."""
    if not old or old == new:
        return 0
    old, new = f"{old.rstrip('/')}/", f"{new.rstrip('/')}/"
    return connection.execute(
        f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE instr({column}, ?) > 0",  # noqa: S608 - ours
        (old, new, old),
    ).rowcount
