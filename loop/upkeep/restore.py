"""Restore a backup into an empty home, with its storage and its database, here or elsewhere.

A mark in the home says that it is not whole yet: whoever opens the home meanwhile, or after a kill, is
refused by name. It is made first and removed last.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from sqlalchemy.engine import make_url

from headwater.infra.settings import RESTORING, Settings
from headwater.infra.store.database import Database, revisions
from headwater.infra.store.storage import Storage
from headwater.loop.upkeep.backup import interrupts_later
from headwater.loop.upkeep.database_copy import free_leases, load_database, revision_of, rows_in
from headwater.loop.upkeep.manifest import Manifest, Told, check_files, read_manifest
from headwater.loop.upkeep.mlflow_file import mlflow_file, readdress
from headwater.loop.upkeep.places import DATABASE, INBOX, KEY, MLFLOW, placed, storages_of
from headwater.loop.upkeep.signed import check_key
from headwater.loop.upkeep.sqlite_copy import end_of_inbox
from headwater.loop.upkeep.storage_copy import load_storage
from headwater.spec.errors import ConflictError, DigestError, IntegrityError, StorageError, few

__all__ = ["restore_backup"]

_Undo = list[Callable[[], object]]


def restore_backup(
    settings: Settings, folder: Path, *, told: Told = lambda *_: None, lost_key: bool = False
) -> Manifest:
    """Restore a backup; all of it is checked before anything is written.

    Parameters
    ----------
    settings
        Where it goes: home, storage and database must be empty. They need not be of the kind that they
        were: a SQLite database may become PostgreSQL's, a folder a bucket, and the other way round.
    folder
        The backup.
    told
        For the progress.
    lost_key
        Whether the key that signed the states is lost: they are restored, and refused until each was
        rebuilt under another key.

    Returns
    -------
    Manifest
        What was restored.

    Raises
    ------
    NotFoundError, IntegrityError
        If the folder is no whole backup, or a file of it is damaged.
    DigestError
        If the key that signed the states is neither in the backup nor in the settings.
    ConflictError
        If home, storage or database are not empty.
    StorageError
        If the backup is of a newer version, or a store refuses. Nothing is left behind then.
    """
    manifest, settings = read_manifest(folder), placed(settings)
    storages = storages_of(settings)
    _check_empty(settings, storages)
    _check_revision(settings, manifest)
    check_files(folder, manifest, told)
    _check_positions(folder, manifest)
    key = None if lost_key else _key(settings, folder, manifest)
    undo: _Undo = []
    try:
        _write(settings, folder, manifest, storages, key, undo, told)
    except BaseException:
        with interrupts_later():
            for step in reversed(undo):
                with suppress(OSError, StorageError):
                    step()
        raise
    return manifest


def _write(
    settings: Settings,
    folder: Path,
    manifest: Manifest,
    storages: dict[str, Storage],
    key: bytes | None,
    undo: _Undo,
    told: Told,
) -> None:
    home = settings.place
    mark = home / RESTORING
    was_there = home.exists()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    undo.append(partial(_empty, home, remove=not was_there))
    mark.write_text(f"{folder.resolve()}\n")
    for name, storage in storages.items():
        prefix = f"{name}/"
        held = [file.removeprefix(prefix) for file in manifest.files if file.startswith(prefix)]
        undo.append(partial(_remove, storage, held))
        load_storage(folder / name, held, storage, name, told)
    _restore_database(settings, folder / DATABASE, undo, told)
    _restore_mlflow(settings, folder / MLFLOW, manifest, undo)
    for file in manifest.files:
        if file.startswith(f"{INBOX}/"):
            _copy(folder / file, home / file)
    if key is not None and manifest.key_in_home:  # without it, the next command would make a new one
        with os.fdopen(os.open(home / KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made:
            made.write(key)
    os.sync()
    mark.unlink()


def _restore_database(settings: Settings, source: Path, undo: _Undo, told: Told) -> None:
    url = make_url(settings.operational_url)
    local = url.get_backend_name() == "sqlite"
    path = Path(str(url.database)) if local else settings.place / DATABASE
    undo.extend(partial(Path(f"{path}{end}").unlink, missing_ok=True) for end in ("", "-wal", "-shm"))
    _copy(source, path)
    with closing(Database(settings.operational_url)) as database:  # brings an older schema up to date
        if local:
            with database.transaction() as connection:
                free_leases(connection)
        else:
            load_database(path, database, told)  # in one transaction: all of it, or nothing
    if not local:
        path.unlink()
    told("database", 1, 1)


def _restore_mlflow(settings: Settings, source: Path, manifest: Manifest, undo: _Undo) -> None:
    target = mlflow_file(settings)
    if not source.exists() or target is None:
        return
    undo.append(partial(target.unlink, missing_ok=True))
    _copy(source, target)
    readdress(
        target, (manifest.artifacts, settings.artifact_uri), (manifest.storage, settings.storage_uri)
    )


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise StorageError(
            f"cannot write {target}: {error.strerror}", hint="check the disk; nothing was restored"
        ) from error


def _check_empty(settings: Settings, storages: dict[str, Storage]) -> None:
    """Refuse to write where something is."""
    home = settings.place
    if (home / RESTORING).exists():
        raise ConflictError(
            f"a restore into {home} was interrupted",
            hint="remove that folder, and what it put into storage, then restore again",
        )
    if home.exists() and (held := sorted(path.name for path in home.iterdir())):
        raise ConflictError(
            f"the home {home} is not empty: it holds {few(held)}",
            hint="set HEADWATER_HOME to a new folder",
        )
    for storage in storages.values():
        if held := storage.names():
            raise ConflictError(
                f"the storage {storage.root} is not empty: it holds {few(held)}",
                hint="set HEADWATER_STORAGE (and HEADWATER_ARTIFACTS) to a new place",
            )
    file = mlflow_file(settings)
    if file is not None and file.exists():
        raise ConflictError(
            f"MLflow's file {file} is there already", hint="set HEADWATER_MLFLOW_URI to a new file"
        )
    _check_database(settings)


def _check_database(settings: Settings) -> None:
    url = make_url(settings.operational_url)
    if url.get_backend_name() == "sqlite":
        held = str(url.database) if Path(str(url.database)).exists() else None
    else:
        with closing(Database(settings.operational_url)) as database, database.reading() as connection:
            held = rows_in(connection)
    if held is not None:
        raise ConflictError(
            f"the database {url.render_as_string(hide_password=True)} is not empty: it holds {held}",
            hint="set HEADWATER_DATABASE_URL to a new database",
        )


def _check_revision(settings: Settings, manifest: Manifest) -> None:
    if manifest.revision not in revisions():
        raise StorageError(
            f"the backup's database has schema {manifest.revision}, which this version does not know",
            hint=f"install headwater {manifest.headwater} or newer",
        )
    if mlflow_file(settings) is None and MLFLOW in manifest.files:
        raise StorageError(
            "the backup has MLflow's records as a SQLite file, and HEADWATER_MLFLOW_URI names none",
            hint="unset HEADWATER_MLFLOW_URI to restore them into a file; MLflow's server may use that",
        )


def _check_positions(folder: Path, manifest: Manifest) -> None:
    """Refuse an inbox that would give out positions again which the database has read already."""
    for name, log in manifest.pipelines.items():
        end = end_of_inbox(folder / INBOX / f"{name}.sqlite")
        if end != log.position or end < log.sequenced:
            raise IntegrityError(
                f"the inbox of {name} ends at position {end} in the backup, which was taken at "
                f"{log.position}, and whose database has read up to {log.sequenced}",
                hint="use another backup; nothing was restored",
            )
    if revision_of(folder / DATABASE) != manifest.revision:
        raise IntegrityError(
            f"the database of the backup {folder} is not the one of its manifest",
            hint="use another backup; nothing was restored",
        )


def _key(settings: Settings, folder: Path, manifest: Manifest) -> bytes | None:
    """Return the key that signed the states of the backup; None if it holds none, and no key."""
    if settings.signing_key is not None:
        key = settings.key()
    elif manifest.with_key:
        key = (folder / KEY).read_bytes()
    elif any(name.endswith("/proof.json") for name in manifest.files):
        raise DigestError(
            f"the signing key is not in the backup {folder}, and none is given",
            hint="set HEADWATER_SIGNING_KEY to the key that signed the states, or add --lost-key",
        )
    else:
        return None
    check_key(key, folder)
    return key


def _empty(folder: Path, *, remove: bool) -> None:
    for path in sorted(folder.iterdir(), key=lambda path: path.name == RESTORING):  # the mark last
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if remove:
        folder.rmdir()


def _remove(storage: Storage, names: list[str]) -> None:
    for name in names:
        storage.remove_file(*name.split("/"))
