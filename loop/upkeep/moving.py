"""A home or storage that was moved: MLflow's records name the place of each state."""

import json
from contextlib import closing
from pathlib import Path

import msgspec

from headwater.infra.settings import Settings
from headwater.loop.upkeep.mlflow_file import mlflow_file, readdress
from headwater.loop.upkeep.places import ARTIFACTS, storages_of
from headwater.loop.upkeep.sqlite_copy import guarded, only_reading
from headwater.loop.upkeep.use import home_alone
from headwater.spec.errors import ConflictError, NotFoundError, StorageError, few

__all__ = ["MovedStates", "follow_move"]

_PLACES = """
SELECT substr(name, 11), artifact_location FROM experiments
WHERE name LIKE 'headwater/%' AND lifecycle_stage = 'active'
"""
_SOURCES = "SELECT DISTINCT dataset_source FROM datasets WHERE dataset_source LIKE '%/tables/%'"


class MovedStates(msgspec.Struct, frozen=True, kw_only=True):
    """The result of following a move.

    Parameters
    ----------
    before, after
        Where MLflow's records said that states are, and where they are.
    changed
        How many addresses were changed.
    """

    before: tuple[str, ...]
    after: str
    changed: int


def follow_move(settings: Settings) -> MovedStates:
    """Change the addresses in MLflow's records to where the settings say that states and tables are.

    Raises
    ------
    NotFoundError
        If there are no records.
    ConflictError
        If a state is not where it would be.
    BusyError
        If a service or a trainer uses a pipeline of the home.
    StorageError
        If MLflow keeps its records elsewhere than in a SQLite file, or a store refuses.
    """
    file = mlflow_file(settings)
    if file is None:
        raise StorageError(
            "MLflow's records are not in a SQLite file: their addresses cannot be changed from here",
            hint="set HEADWATER_ARTIFACTS to the place that they name, or change them in MLflow's "
            "tables experiments, runs, logged_models and model_versions",
        )
    if not file.exists():
        raise NotFoundError(f"there are no records of MLflow at {file}", hint="check HEADWATER_HOME")
    with home_alone(settings):
        places, storages = _places(file), _storages(file)
        after = settings.artifact_uri.rstrip("/")
        _check_there(settings, sorted(places))
        before = {place.removesuffix(f"/{name}") for name, place in places.items()} - {after}
        changed = 0
        for old in sorted(before):
            changed += readdress(file, (old, after), ("", ""))
        for old in sorted(storages - {settings.storage_uri}):
            changed += readdress(file, ("", ""), (old, settings.storage_uri))
        return MovedStates(before=tuple(sorted(before)), after=after, changed=changed)


def _places(file: Path) -> dict[str, str]:
    """Return where the states of each pipeline are, by the records."""
    with guarded(file), closing(only_reading(file)) as connection:
        return {name: place.rstrip("/") for name, place in connection.execute(_PLACES)}


def _storages(file: Path) -> set[str]:
    """Return the roots of the tables that versions were trained on, by the records."""
    found = set()
    with guarded(file), closing(only_reading(file)) as connection:
        for (source,) in connection.execute(_SOURCES):
            path = str(json.loads(source).get("path", ""))
            found.add(path.rpartition("/tables/")[0])
    return found - {""}


def _check_there(settings: Settings, pipelines: list[str]) -> None:
    """Refuse to name a place at which a pipeline's states are not."""
    storage, file = storages_of(settings)[ARTIFACTS], mlflow_file(settings)
    there = {name.partition("/")[0] for name in storage.names()}
    with guarded(Path(str(file))), closing(only_reading(Path(str(file)))) as connection:
        versions = {name for (name,) in connection.execute("SELECT DISTINCT name FROM model_versions")}
    if missing := [name for name in pipelines if name in versions and name not in there]:
        raise ConflictError(
            f"no state of {few(missing)} is at {settings.artifact_uri}",
            hint="move them there, or set HEADWATER_ARTIFACTS to where they are",
        )
