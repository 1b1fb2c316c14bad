"""SQLite files of a home that cannot be opened at all: set aside, and made again from what is whole."""

import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import select
from sqlalchemy.engine import make_url

from headwater.features.identity.belonging import RETIRED
from headwater.features.integrity.first_page import (
    cannot_be_opened,
    companions,
    put_first_page,
    set_aside,
)
from headwater.features.integrity.refill import refill
from headwater.features.record.imported_files import folder_of
from headwater.features.record.inbox import Inbox, inbox_file
from headwater.features.record.inbox_identity import InboxIdentity, read_identity, take_identity
from headwater.infra.clock import SystemClock, from_us
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.identity import identity_of
from headwater.infra.store.schema import tables
from headwater.infra.store.turns import alone
from headwater.spec.errors import StorageError

__all__ = ["open_database_again", "open_inbox_again"]


def open_database_again(settings: Settings) -> str | None:
    """Mend the SQLite file of the database if it cannot be opened; return what was done.

    Raises
    ------
    StorageError
        If more than its first page is damaged: then no other store has all that it had.
    BusyError
        If a process uses an inbox of the home.
    """
    url = make_url(settings.operational_url)
    path = Path(url.database or "")
    if url.get_backend_name() != "sqlite" or not cannot_be_opened(path):
        return None
    with ExitStack() as stack:
        for inbox in sorted((settings.root / "inbox").glob("*.sqlite")):
            stack.enter_context(alone(inbox))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix=".mending-", dir=path.parent)))
        mended = folder / path.name
        if put_first_page(path, _like(folder, lambda like: Database(f"sqlite:///{like}")), mended):
            aside = _replaced(path, mended, keeps_log=True)
            return f"the database was opened again with a new first page; the damaged file is {aside}"
    raise StorageError(
        f"the database {path} cannot be opened, and more than its first page is damaged, or an earlier "
        "version of headwater made it: no other store has its champions, decisions and keys",
        hint=f"put a copy back as {path}, or restore a backup elsewhere; the inboxes go on recording, "
        "and headwater doctor --repair sequences again what came since",
    )


def open_inbox_again(pipeline: str, settings: Settings, database: Database, number: int) -> str | None:
    """Mend the file of an inbox if it cannot be opened, or make it anew; return what was done.

    Its first page is made again, and what the rest of the file has is kept. If more is damaged, the
    inbox is made anew from the rows that the database made of its entries.

    Raises
    ------
    StorageError
        If neither is possible.
    BusyError
        If a process uses the inbox.
    """
    path = inbox_file(pipeline, settings)
    if not cannot_be_opened(path):
        return None
    read = _read_to(database, number)
    with alone(path), TemporaryDirectory(prefix=".mending-", dir=path.parent) as temporary:
        folder = Path(temporary)
        mended = folder / path.name
        if put_first_page(path, _like(folder, Inbox), mended) and _inbox_in(mended) in read:
            aside = _replaced(path, mended, keeps_log=True)
            return f"the inbox was opened again with a new first page; the damaged file is {aside}"
        anew = folder / f"anew-{path.name}"
        if len(read) != 1 or not _made_of_rows(database, number, anew, *read.popitem()):
            raise StorageError(
                f"the inbox {path} cannot be opened, and the database does not have each of its entries",
                hint=f"put a copy back as {path}; if there is none, move the file away, then: "
                f"headwater adopt {pipeline}",
            )
        aside = _replaced(path, anew, keeps_log=False)
    return f"the inbox was made anew from the database{_lost(database, number)}; the old file is {aside}"


def _like(folder: Path, make: Callable[[Path], Inbox | Database]) -> Path:
    like = folder / "like.sqlite"
    make(like).close()
    return like


def _inbox_in(path: Path) -> str | None:
    try:
        identity = read_identity(path)
    except sqlite3.Error:
        return None
    return None if identity is None else identity.inbox


def _made_of_rows(database: Database, number: int, path: Path, inbox_id: str, read_to: int) -> bool:
    """Make an inbox of the same id and entries, at the same positions; return whether it is so."""
    Inbox(path).close()
    take_identity(path, InboxIdentity(inbox_id, identity_of(database, number).log))
    with closing(Inbox(path)) as inbox:
        refill(database, number, inbox)
        return inbox.end() == read_to


def _replaced(path: Path, by: Path, *, keeps_log: bool) -> Path:
    """Put a file in the place of a damaged one, which is kept under another name; return that.

    Parameters
    ----------
    path, by
        The damaged file, and what takes its place.
    keeps_log
        Whether the write-ahead log may stay until then: what takes the place has all that is in it.
    """
    aside = set_aside(path, SystemClock().now())
    _, *rest = companions(path)
    if not keeps_log:
        imported = folder_of(path)
        if imported.exists():
            imported.rename(aside.with_name(f"{aside.name}.imported"))
        for one in rest:
            one.unlink(missing_ok=True)
    by.replace(path)
    for one in rest:
        one.unlink(missing_ok=True)
    return aside


def _read_to(database: Database, number: int) -> dict[str, int]:
    """Return how far the database has read each inbox of a log."""
    read = tables.inbox_position.c
    query = select(read.inbox, read.position).where(
        read.pipeline_id == number, ~read.inbox.startswith(RETIRED)
    )
    with database.reading() as connection:
        return dict(connection.execute(query).tuples().all())


def _lost(database: Database, number: int) -> str:
    place = tables.sequencer.c
    with database.reading() as connection:
        query = select(place.horizon_us).where(place.pipeline_id == number)
        horizon_us = connection.execute(query).scalar_one()
    if not horizon_us:
        return ", which had read nothing: what it had acknowledged is lost"
    return f": what it acknowledged after {from_us(horizon_us):%Y-%m-%d %H:%M:%S} UTC is lost"
