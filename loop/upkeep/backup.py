"""Back a home up while it serves, learns and trains.

The moment is that of the operational database. Its write lock is held for as long as a copy of MLflow's
small file takes: versions are made and promoted under that lock, so that the two agree. What else is
copied afterwards may have gone on by then, each in a way that is harmless or undone: an inbox only grows
and is read again from where the database stopped, a state is stored before its version is, and a table
of the archive is cut at the commit up to which the database had come.
"""

import importlib.metadata
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, select

from headwater.features.record.inbox import inbox_file
from headwater.features.record.inbox_identity import read_identity
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.infra.store.storage import Storage
from headwater.loop.upkeep.database_copy import copy_database, pin
from headwater.loop.upkeep.manifest import LAYOUT, BackedUpLog, Manifest, Told, sums_of
from headwater.loop.upkeep.mlflow_file import elsewhere, mlflow_file
from headwater.loop.upkeep.places import DATABASE, INBOX, KEY, MLFLOW, names_in, placed, storages_of
from headwater.loop.upkeep.signed import check_key
from headwater.loop.upkeep.sqlite_copy import copy_file, copy_inbox, guarded
from headwater.loop.upkeep.storage_copy import TableEnds, copy_storage
from headwater.spec.errors import ConflictError, NotFoundError, StorageError

__all__ = ["back_up"]

_Logs = dict[str, tuple[int, str]]


def back_up(
    settings: Settings, folder: Path, *, with_key: bool = False, told: Told = lambda *_: None
) -> Manifest:
    """Copy inboxes, database, MLflow's file, tables and states to a folder.

    Parameters
    ----------
    settings
        Where the stores are.
    folder
        Where the backup goes: a new folder, or an empty one.
    with_key
        Whether the signing key goes with it. Whoever has it can make states that are loaded.
    told
        For the progress.

    Returns
    -------
    Manifest
        The position of the backup, and its files.

    Raises
    ------
    ConflictError
        If the folder is not empty, or lies where it would be copied itself.
    NotFoundError
        If there is no home.
    DigestError
        If the signing key is not the one that signed the states.
    StorageError, IdentityError, TableError
        If a store cannot be read, or the folder not be written. Nothing is left of the backup then.
    """
    settings = placed(settings)
    storages = storages_of(settings)
    _check(settings, folder, storages)
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        manifest = _copied(settings, folder, storages, with_key=with_key, told=told)
        manifest.write(folder)
    except BaseException:
        _clear(folder, whole=made)
        raise
    return manifest


def _copied(
    settings: Settings, folder: Path, storages: dict[str, Storage], *, with_key: bool, told: Told
) -> Manifest:
    notes: list[str] = []
    at = datetime.now(UTC)  # the machine's time, also where HEADWATER_NOW stands still
    with closing(Database(settings.operational_url)) as database, ExitStack() as reading:
        with database.transaction():  # no version is made and none promoted meanwhile
            connection = reading.enter_context(database.reading())
            revision = pin(connection)
            at_ms = time.time_ns() // 1_000_000
            notes += _copy_mlflow(settings, folder / MLFLOW, told)
        copy_database(connection, folder / DATABASE, told)
        logs, ends = _logs(connection), _ends(connection)
        read_to = _read_to(connection)
    positions = dict(_inboxes(settings, folder / INBOX, logs, ends, read_to, notes, told))
    by_log = {uuid: ends[number] for number, uuid in logs.values()}
    for name, files in names_in(storages, logs).items():
        copy_storage(storages[name], files, folder / name, TableEnds(by_log, at_ms), name, told)
    if settings.has_key:
        check_key(settings.key(), folder)
    with_key = with_key and settings.has_key
    if with_key:
        _write_key(settings.key(), folder / KEY)
    return Manifest(
        layout=LAYOUT,
        headwater=importlib.metadata.version("headwater"),
        revision=revision,
        at=at,
        pipelines=positions,
        storage=settings.storage_uri,
        artifacts=settings.artifact_uri,
        with_key=with_key,
        key_in_home=settings.signing_key is None,
        notes=tuple(notes),
        files=sums_of(folder, told),
    )


def _check(settings: Settings, folder: Path, storages: dict[str, Storage]) -> None:
    """Refuse what cannot become a backup, before anything is written."""
    if not settings.place.exists():
        raise NotFoundError(f"there is no home {settings.place}", hint="check HEADWATER_HOME")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConflictError(
            f"{folder} is not empty", hint="name a new folder: a backup takes the place of no other one"
        )
    within = folder.resolve()
    for root in (settings.place / INBOX, *(Path(storage.root) for storage in storages.values())):
        if within.is_relative_to(root):
            raise ConflictError(
                f"{folder} lies in {root}, which is copied", hint="name a folder elsewhere"
            )
    file = mlflow_file(settings)
    if file is not None and file.exists() and (places := elsewhere(file, settings.artifact_uri)):
        raise ConflictError(
            f"MLflow keeps states at {places[0]}, which is not below {settings.artifact_uri}",
            hint="correct HEADWATER_ARTIFACTS; if the home was moved: headwater moved",
        )


def _copy_mlflow(settings: Settings, target: Path, told: Told) -> Iterator[str]:
    file = mlflow_file(settings)
    if file is None:
        yield "MLflow's records are not in it, since they are in no SQLite file: back them up as well"
    elif file.exists():
        copy_file(file, target, "MLflow", told)


def _logs(connection: Connection) -> _Logs:
    """Return number and id of each log, by pipeline."""
    row, log = tables.pipeline.c, tables.log.c
    named = select(row.name, row.id, log.uuid).join(tables.log, row.id == log.pipeline_id)
    found = connection.execute(named)
    return {name: (number, uuid) for name, number, uuid in found}


def _ends(connection: Connection) -> dict[int, tuple[int, int]]:
    """Return the next position and the next offset, by a pipeline's number."""
    row = tables.sequencer.c
    found = connection.execute(select(row.pipeline_id, row.next_position, row.next_offset))
    return {number: (position, offset) for number, position, offset in found}


def _read_to(connection: Connection) -> dict[tuple[int, str], int]:
    row = tables.inbox_position.c
    found = connection.execute(select(row.pipeline_id, row.inbox, row.position))
    return {(number, inbox): position for number, inbox, position in found}


def _inboxes(
    settings: Settings,
    folder: Path,
    logs: _Logs,
    ends: dict[int, tuple[int, int]],
    read_to: dict[tuple[int, str], int],
    notes: list[str],
    told: Told,
) -> Iterator[tuple[str, BackedUpLog]]:
    """Copy the inboxes of the database's pipelines, after the database: none ends before it has read."""
    new = {path.stem for path in (settings.place / INBOX).glob("*.sqlite")} - logs.keys()
    notes += [f"{name} is not in it: it began while the backup was made" for name in sorted(new)]
    for name, (number, log) in logs.items():
        path = inbox_file(name, settings)
        if not path.exists():
            notes.append(f"the inbox of {name} is not in it: this home has none")
            continue
        with guarded(path):
            identity = read_identity(path)
        if identity is None or identity.log not in {None, log}:
            raise StorageError(
                f"the inbox {path} is not of the log that the database keeps for {name!r}",
                hint="headwater doctor names the stores that do not belong together",
            )
        end = copy_inbox(path, folder / path.name, told)
        yield (
            name,
            BackedUpLog(
                log=log,
                inbox=identity.inbox,
                position=end,
                sequenced=read_to.get((number, identity.inbox), 0),
                examples=ends[number][1],
            ),
        )


def _write_key(key: bytes, path: Path) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key)


def _clear(folder: Path, *, whole: bool) -> None:
    """Remove what there is of a backup that did not become whole."""
    with interrupts_later():
        if whole:
            shutil.rmtree(folder, ignore_errors=True)
            return
        for path in folder.iterdir():
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Do not let a second Ctrl-C stop the cleaning up after the first."""
    import signal  # noqa: PLC0415
    import threading  # noqa: PLC0415

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
