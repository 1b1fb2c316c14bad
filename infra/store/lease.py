"""Leases with a fencing epoch: one writer at a time, and a writer that was replaced cannot write.

The method is the lease of Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism for
distributed file cache consistency" (SOSP 1989), with an epoch that rises at every take-over and that
every write checks in its own transaction.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import psutil
from sqlalchemy import Connection, insert, select, update

from headwater.infra.clock import Clock, from_us, to_us
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.spec.errors import BusyError, FencedError

__all__ = ["Lease", "acquire", "check", "holding", "is_held", "keep", "release", "renew"]

_TERM = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write under `name`, until somebody takes it over.

    Parameters
    ----------
    name
        What is written, such as ``"sequence/flights"``.
    epoch
        Number of this holder; a later holder has a higher one.
    """

    name: str
    epoch: int


def acquire(database: Database, clock: Clock, name: str, *, take_over: bool = False) -> Lease:
    """Take the lease, if nobody alive holds it.

    A holder counts as gone when its term has passed or when its process, on this host, has ended.
    A process that holds the lease already gets a new epoch, and its older one is fenced.

    Parameters
    ----------
    take_over
        Take it from a living holder too.

    Raises
    ------
    BusyError
        If another living process holds it.
    """
    me = _identity()
    now_us = to_us(clock.now())
    expires_us = to_us(clock.now() + _TERM)
    with database.transaction() as connection:
        row = connection.execute(
            select(tables.lease).where(tables.lease.c.name == name).with_for_update()
        ).one_or_none()
        if row is None:
            connection.execute(
                insert(tables.lease).values(name=name, epoch=1, holder=me, expires_at_us=expires_us)
            )
            return Lease(name, 1)
        held_by_other = row.holder is not None and row.holder != me
        if held_by_other and not take_over and now_us < row.expires_at_us and _alive(row.holder):
            raise BusyError(
                f"{name!r} is held by {row.holder} until {from_us(row.expires_at_us).isoformat()}",
                hint="wait for it to end, or end that process",
            )
        connection.execute(
            update(tables.lease)
            .where(tables.lease.c.name == name)
            .values(epoch=row.epoch + 1, holder=me, expires_at_us=expires_us)
        )
        return Lease(name, row.epoch + 1)


@contextmanager
def holding(database: Database, clock: Clock, name: str) -> Iterator[Lease]:
    """Hold the lease for the length of a block, however the block ends.

    Raises
    ------
    BusyError
        If another living process holds it; the block does not begin then.
    """
    lease = acquire(database, clock, name)
    try:
        yield lease
    finally:
        release(database, lease)


def check(connection: Connection, lease: Lease) -> None:
    """Raise, in an open transaction, if the lease was taken over.

    Raises
    ------
    FencedError
        If a newer epoch holds it.
    """
    epoch = connection.execute(
        select(tables.lease.c.epoch).where(tables.lease.c.name == lease.name).with_for_update()
    ).scalar_one()
    _refuse_other(epoch, lease)


def keep(connection: Connection, clock: Clock, lease: Lease) -> None:
    """Raise if the lease was taken over; otherwise begin its term anew.

    For a holder that stays: in its open transactions, in place of :func:`check`, more often than a term.

    Raises
    ------
    FencedError
        If a newer epoch holds it.
    """
    row = tables.lease.c
    current = connection.execute(
        select(row.epoch, row.expires_at_us).where(row.name == lease.name).with_for_update()
    ).one()
    _refuse_other(current.epoch, lease)
    if current.expires_at_us < to_us(clock.now() + _TERM / 2):
        expires_us = to_us(clock.now() + _TERM)
        connection.execute(
            update(tables.lease).where(row.name == lease.name).values(expires_at_us=expires_us)
        )


def renew(database: Database, clock: Clock, lease: Lease) -> None:
    """Keep the lease in long work, as :func:`keep` does, in a transaction of its own.

    Raises
    ------
    FencedError
        If a newer epoch holds it.
    """
    with database.transaction() as connection:
        keep(connection, clock, lease)


def is_held(database: Database, clock: Clock, name: str) -> bool:
    """Return whether a living process holds the lease, as :func:`acquire` sees it."""
    table = tables.lease.c
    with database.reading() as connection:
        row = connection.execute(
            select(table.holder, table.expires_at_us).where(table.name == name)
        ).one_or_none()
    if row is None or row.holder is None:
        return False
    return to_us(clock.now()) < row.expires_at_us and _alive(row.holder)


def release(database: Database, lease: Lease) -> None:
    """Release the lease; do nothing if it was taken over."""
    with database.transaction() as connection:
        connection.execute(
            update(tables.lease)
            .where(tables.lease.c.name == lease.name, tables.lease.c.epoch == lease.epoch)
            .values(holder=None)
        )


def _refuse_other(epoch: int, lease: Lease) -> None:
    if epoch != lease.epoch:
        raise FencedError(
            f"{lease.name!r} was taken over: epoch {epoch} holds it, this process has {lease.epoch}",
            hint="let the newer process go on; this one has written nothing more",
        )


def _identity() -> str:
    """Name this process so that another with the same pid, later, is not taken for it."""
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def _alive(holder: str) -> bool:
    host, pid, started = holder.rsplit("/", 2)
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        ended = process.status() == psutil.STATUS_ZOMBIE  # killed, and not yet noticed by its parent
        return not ended and f"{process.create_time():.2f}" == started
    except psutil.NoSuchProcess:
        return False
