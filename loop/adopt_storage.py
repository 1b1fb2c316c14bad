"""Adoption from storage: the log from the archive, and versions from their files."""

from collections.abc import Collection

from sqlalchemy import select

from headwater.features.identity.kept_log import KeptLog
from headwater.features.integrity.archived_log import ArchivedLog
from headwater.features.read.archive import Archive
from headwater.infra.clock import Clock, to_us
from headwater.infra.commit_points import reached
from headwater.infra.settings import Settings
from headwater.infra.store.audit import note
from headwater.infra.store.database import Database
from headwater.infra.store.identity import Identity
from headwater.infra.store.lease import Lease
from headwater.infra.store.open_storage import states_of
from headwater.infra.store.schema import tables
from headwater.infra.store.storage import Storage
from headwater.registry.mlflow_store.kept_versions import KeptVersions
from headwater.registry.mlflow_store.numbers import forget_version, reserve_numbers
from headwater.registry.registry import Registry
from headwater.registry.version import Candidate, Version
from headwater.spec.errors import ConflictError, DigestError, NotFoundError, StorageError
from headwater.spec.recipe import Recipe

__all__ = ["is_from_archive", "register_again", "take_champion", "write_archived"]

_ACTION = "adopt from archive"


def write_archived(
    pipeline: str, storage: Storage, kept: KeptLog, database: Database, clock: Clock, *, by: str
) -> int:
    """Put a log into a database that does not know it, from the archive; return its number there.

    All of it is one transaction: after a kill, the database has nothing of it, or all.

    Raises
    ------
    IdentityError, TableError, StorageError
        If the archive is another log's, damaged, or away. The database is as it was then.
    """
    archived = ArchivedLog(Archive(storage, Identity(pipeline, kept.log)), kept)
    archived.check()
    archived.cut()
    reached("adopt.after_cut")
    with database.transaction() as connection:
        id_ = archived.write(connection)
        detail = {"log": kept.log, "position": kept.position, "offset": kept.offset}
        note(connection, to_us(clock.now()), by, _ACTION, pipeline_id=id_, detail=detail)
        reached("adopt.before_commit")
    reached("adopt.after_commit")
    return id_


def is_from_archive(database: Database, pipeline_id: int) -> bool:
    """Tell whether the database's rows of a log were put there from its archive."""
    row = tables.audit.c
    query = select(row.number).where(row.pipeline_id == pipeline_id, row.action == _ACTION)
    with database.reading() as connection:
        return connection.execute(query.limit(1)).first() is not None


def register_again(
    registry: Registry, settings: Settings, offset: int, lease: Lease
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Register versions anew that MLflow does not know, and whose files hold, under their numbers.

    Parameters
    ----------
    registry, settings
        The pipeline's versions, and where their files are.
    offset
        The next one: a version that learned examples behind it has learned what is lost.
    lease
        The trainer's.

    Returns
    -------
    again : tuple
        Numbers of those that were registered.
    left : dict
        Those that could not be, by number, with the reason of each.

    Raises
    ------
    StorageError
        If MLflow or storage is away; a later call goes on.
    """
    stored = _stored(registry, settings)
    if stored is None:
        return (), {}
    known = {version.number: version for version in registry.store.versions()}
    newest = max(map(int, known), default=0)
    again, left = list[str](), dict[str, str]()
    for version, folder in stored.list():
        there = known.get(version.number)
        if there is not None:
            if there.recipe_id == version.recipe_id and there.model_id != version.model_id:
                _remove(registry, stored, there, folder)
        elif int(version.number) > newest:
            try:
                made = _register(registry, stored, version, folder, offset, lease)
            except (ConflictError, DigestError, NotFoundError) as error:
                left[version.number] = error.what
                continue
            known[made.number] = made
            left.pop(made.number, None)
            again.append(made.number)
            _remove(registry, stored, made, folder)
            reached("adopt.after_version")
    if left:
        reserve_numbers(registry.mlflow, int(max(left, key=int)) + 1)
    return tuple(again), left


def take_champion(registry: Registry, settings: Settings, refused: Collection[str], *, by: str) -> None:
    """Make the version champion that was it, in a database that has none; or its newest ancestor."""
    stored = _stored(registry, settings)
    number = None if stored is None else stored.champion()
    if stored is None or number is None:
        return
    parents = {version.number: version.parent for version, _ in stored.list()}
    while number is not None and (number in refused or not registry.store.holds(number)):
        number = parents.pop(number, None)
    if number is not None:
        registry.promote(number, by=by, reason="adopted from the storage of a home that is lost")


def _stored(registry: Registry, settings: Settings) -> KeptVersions | None:
    states = states_of(settings)
    return None if states is None else KeptVersions(states, registry.pipeline, registry.mlflow.key)


def _register(
    registry: Registry, stored: KeptVersions, version: Version, folder: str, offset: int, lease: Lease
) -> Version:
    """Register one version anew.

    Raises
    ------
    ConflictError
        If it learned examples that are lost, or MLflow has given its number away.
    DigestError
        If its files, or what it was learned on from, are not what was signed.
    NotFoundError
        If a file of it is gone.
    """
    if version.examples.stop > offset:
        raise ConflictError(
            f"it learned the examples {version.examples}, and those from {offset} on are lost",
            hint="learn a version anew: headwater train",
        )
    candidate = stored.candidate(version, folder)
    recipe = Recipe.from_json(candidate.recipe)
    if recipe.parent is not None and registry.store.holds(recipe.parent):
        parent = registry.store.get(recipe.parent)
        if parent.digest != recipe.parent_digest:
            raise DigestError(
                f"version {parent.number} is not the one that it was learned on from",
                hint="learn a version anew: headwater train --fresh",
            )
    return _published(registry, candidate, version.number, lease)


def _published(registry: Registry, candidate: Candidate, number: str, lease: Lease) -> Version:
    """Register a version under its number, by which others name it; refuse to under another one."""
    after = str(reserve_numbers(registry.mlflow, int(number)))
    version = registry.publish(candidate, lease) if after == number else None
    if version is not None and version.number == number:
        return version
    if version is not None and int(version.number) > int(number):
        forget_version(registry.mlflow, version.number)
    raise ConflictError(
        f"its number is taken: it would get {after if version is None else version.number}",
        hint="MLflow has given its number to another version, or to one that was deleted",
    )


def _remove(registry: Registry, stored: KeptVersions, version: Version, folder: str) -> None:
    """Remove the files of a version that has copies of them now, which hold."""
    try:
        registry.store.verified_files(version, again=True)
    except (DigestError, StorageError):
        return
    stored.remove(folder)
