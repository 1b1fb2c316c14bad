"""Delete a pipeline from all stores, so that its name can be used afresh.

A mark beside the inbox is made first and removed last: whoever opens the inbox meanwhile, or after a
kill, is refused, and a deletion that was killed goes on when it is called again. Rows go before the
inbox, and what the rows name goes before them.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import delete, select, update

from headwater.features.read.repository import find, registered
from headwater.features.record.imported_files import folder_of
from headwater.features.record.inbox import inbox_file
from headwater.infra.clock import SystemClock, to_us
from headwater.infra.commit_points import reached
from headwater.infra.settings import Settings
from headwater.infra.store.audit import note
from headwater.infra.store.database import Database
from headwater.infra.store.identity import Claim, Identity, identity_of
from headwater.infra.store.lease import is_held
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.published_file import replacing
from headwater.infra.store.schema import every_table, tables
from headwater.infra.store.turns import alone, deleting
from headwater.loop.upkeep.places import ARTIFACTS, storages_of
from headwater.registry.mlflow_store.connection import check_owned, forget
from headwater.spec.errors import BusyError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["DeletedPipeline", "delete_pipeline"]

_FOLDERS = ("batch", "features", "reports", "tables")
_ENDS = (".sqlite", ".sqlite-wal", ".sqlite-shm", ".turn", ".next", ".end")


class DeletedPipeline(msgspec.Struct, frozen=True, kw_only=True):
    """What was deleted.

    Parameters
    ----------
    pipeline, log
        The name, which can be used afresh, and the id of its log.
    versions
        How many versions MLflow knew.
    """

    pipeline: str
    log: str
    versions: int


def delete_pipeline(
    pipeline: str, settings: Settings, *, by: str, first: Callable[[], object] = lambda: None
) -> DeletedPipeline:
    """Delete a pipeline's inbox, rows, tables, states and records of MLflow.

    The audit keeps its rows, without the pipeline's number, and says who deleted it.

    Parameters
    ----------
    pipeline, settings
        Which, and where its stores are.
    by
        Who deletes it.
    first
        Called once nothing refuses, before anything is deleted.

    Raises
    ------
    NotFoundError
        If there is none of that name.
    BusyError
        If a process uses it, here or on another host.
    IdentityError
        If a store has something of another log under the name.
    StorageError
        If a store refuses; a later call goes on.
    """
    path = inbox_file(pipeline, settings)
    with closing(Database(settings.operational_url)) as database:
        identity = _begun(path) or _identity(database, pipeline, settings)
        with alone(path):
            _check(database, identity, settings)
            first()
            with _marked(path, identity):
                versions = _delete(database, identity, settings, by)
    path.with_suffix(".open").unlink(missing_ok=True)
    return DeletedPipeline(pipeline=pipeline, log=identity.log, versions=versions)


def _begun(path: Path) -> Identity | None:
    """Return the log that an interrupted deletion works on; None if none was."""
    with suppress(FileNotFoundError):
        return msgspec.json.decode(deleting(path).read_bytes(), type=Identity)
    return None


def _identity(database: Database, pipeline: str, settings: Settings) -> Identity:
    return identity_of(database, find(database, pipeline, settings))


def _check(database: Database, identity: Identity, settings: Settings) -> None:
    """Refuse to delete what is in use elsewhere, or another log's."""
    name = identity.pipeline
    with database.reading() as connection:
        leases = connection.execute(select(tables.lease.c.name)).scalars().all()
    for lease in leases:
        if lease.endswith(f"/{name}") and is_held(database, SystemClock(), lease):
            raise BusyError(
                f"{lease!r} is held by a process that works on the pipeline",
                hint="wait for it to end, or end it; on another host, too",
            )
    Claim(open_storage(settings), identity).check()
    check_owned(identity, settings)


@contextmanager
def _marked(path: Path, identity: Identity) -> Iterator[None]:
    """Let nobody use the pipeline until all of it is gone."""
    mark = deleting(path)
    mark.parent.mkdir(parents=True, exist_ok=True)
    if not mark.exists():
        with replacing(mark) as draft:
            draft.write_bytes(msgspec.json.encode(identity))
    yield
    mark.unlink()


def _delete(database: Database, identity: Identity, settings: Settings, by: str) -> int:
    name, storage = identity.pipeline, open_storage(settings)
    reached("delete.after_mark")
    for folder in (settings.root / "live" / name, settings.root / "batch"):
        if folder.name == name:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            (folder / f"{name}.sqlite").unlink(missing_ok=True)
    for folder_name in _FOLDERS:
        storage.remove(folder_name, name)
    reached("delete.after_tables")
    storages_of(settings)[ARTIFACTS].remove(name)
    reached("delete.after_states")
    versions = forget(identity, settings)
    reached("delete.after_records")
    number = registered(database).get(name)
    if number is not None and identity_of(database, number) == identity:
        with database.transaction() as connection:
            _delete_rows(connection, number, identity, by)
    reached("delete.after_rows")
    path = inbox_file(name, settings)
    shutil.rmtree(folder_of(path), ignore_errors=True)
    for end in _ENDS:
        Path(f"{path.with_suffix('')}{end}").unlink(missing_ok=True)
    reached("delete.after_inbox")
    return versions


def _delete_rows(connection: "Connection", number: int, identity: Identity, by: str) -> None:
    """Delete the rows of a pipeline, but for the audit's, which lose its number."""
    audit = tables.audit
    connection.execute(update(audit).where(audit.c.pipeline_id == number).values(pipeline_id=None))
    for table in reversed(every_table.sorted_tables):
        if table is not audit and "pipeline_id" in table.c:
            connection.execute(delete(table).where(table.c.pipeline_id == number))
    name, lease = identity.pipeline, tables.lease
    connection.execute(delete(lease).where(lease.c.name.endswith(f"/{name}", autoescape=True)))
    connection.execute(delete(tables.pipeline).where(tables.pipeline.c.id == number))
    detail = {"pipeline": name, "log": identity.log}
    note(connection, to_us(SystemClock().now()), by, "delete pipeline", detail=detail)
