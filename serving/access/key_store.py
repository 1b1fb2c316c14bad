"""API keys in the operational database: made and shown once, kept as hashes, published to workers."""

import logging
import re
import secrets
import threading
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Self

import msgspec
from sqlalchemy import Connection, Row, func, insert, select, update

from headwater.infra.clock import Clock, SystemClock, from_us, to_us
from headwater.infra.settings import Settings
from headwater.infra.store import tables
from headwater.infra.store.audit import check_note, note
from headwater.infra.store.database import Database
from headwater.serving.access.keys import KeyFile, KeyHash, KeyHashes, hash_of
from headwater.serving.api.operation import SCOPES, Scope
from headwater.spec.errors import ConflictError, DeclarationError, HeadwaterError, NotFoundError, few

__all__ = ["Key", "KeyStore", "KeyWatch"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_BEGINNING = "hw"  # lets scanners of leaked secrets find one
_LOOK_S = 0.25
_logger = logging.getLogger("headwater.keys")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key.

    Parameters
    ----------
    number
        Its number, which is a part of it.
    name
        Whose it is: labels that it sends are by this name.
    scopes
        What it may do.
    made_at, made_by
        When it was made, and by whom.
    revoked_at
        When it was revoked; None where it holds.
    """

    number: int
    name: str
    scopes: tuple[Scope, ...]
    made_at: datetime
    made_by: str
    revoked_at: datetime | None = None


class KeyStore:
    """Makes, lists and revokes keys in the operational database.

    Parameters
    ----------
    database, clock
        Where they are kept, and the time.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(self, name: str, scopes: Iterable[str], *, by: str) -> str:
        """Make a key; give it, which nobody can do again.

        Parameters
        ----------
        name
            Whose it is.
        scopes
            What it may do.
        by
            Who makes it.

        Raises
        ------
        DeclarationError
            If the name or a scope does not fit.
        ConflictError
            If a key of that name holds already.
        """
        wanted = _checked(name, list(scopes))
        check_note(by)
        secret, now_us = secrets.token_urlsafe(32), to_us(self._clock.now())
        with self._database.transaction() as connection:
            if _holding(connection, name) is not None:
                raise ConflictError(
                    f"there is a key {name!r} already",
                    hint=f"take another name, or end that one first: headwater keys revoke {name}",
                )
            number = 1 + (connection.execute(select(func.max(tables.api_key.c.number))).scalar() or 0)
            key = f"{_BEGINNING}_{number}_{secret}"
            connection.execute(
                insert(tables.api_key).values(
                    number=number,
                    name=name,
                    sha256=hash_of(key.encode()),
                    scopes=",".join(wanted),
                    made_at_us=now_us,
                    made_by=by,
                )
            )
            note(connection, now_us, by, "add key", detail={"key": name, "scopes": wanted})
        return key

    def revoke(self, name: str, *, by: str) -> None:
        """End a key; workers refuse it within a second.

        Raises
        ------
        NotFoundError
            If no key of that name holds.
        """
        if not _NAME.fullmatch(name):
            raise NotFoundError(
                f"no key is called {name[:100]!r}", hint="list them: headwater keys list"
            )
        check_note(by)
        now_us, table = to_us(self._clock.now()), tables.api_key
        with self._database.transaction() as connection:
            number = _holding(connection, name)
            if number is None:
                names = connection.execute(select(table.c.name).where(table.c.revoked_at_us.is_(None)))
                there = few(sorted(names.scalars())) or "none"
                raise NotFoundError(f"no key {name!r} holds", hint=f"there is {there}")
            connection.execute(
                update(table).where(table.c.number == number).values(revoked_at_us=now_us)
            )
            note(connection, now_us, by, "revoke key", detail={"key": name})

    def keys(self) -> list[Key]:
        """Give all keys, also those revoked, oldest first."""
        return [
            Key(
                number=row.number,
                name=row.name,
                scopes=_scopes(row.scopes),
                made_at=from_us(row.made_at_us),
                made_by=row.made_by,
                revoked_at=None if row.revoked_at_us is None else from_us(row.revoked_at_us),
            )
            for row in self._rows()
        ]

    def hashes(self) -> KeyHashes:
        """Give what workers need."""
        rows = self._rows()
        return KeyHashes(
            closed=bool(rows),
            keys=tuple(
                KeyHash(
                    number=row.number,
                    name=row.name,
                    scopes=frozenset(_scopes(row.scopes)),
                    sha256=row.sha256,
                )
                for row in rows
                if row.revoked_at_us is None
            ),
        )

    def _rows(self) -> list[Row[Any]]:
        with self._database.reading() as connection:
            return list(
                connection.execute(select(tables.api_key).order_by(tables.api_key.c.number)).all()
            )


class KeyWatch:
    """Publishes the keys that hold whenever they change, from a thread of the keeper's process.

    A thread of its own, since the keeper may be busy learning when a key is revoked. In a ``with``
    block, at whose beginning the keys are published.

    Parameters
    ----------
    settings
        Where the database and the home folder are.
    """

    def __init__(self, settings: Settings) -> None:
        self._database = Database(settings.operational_url)
        self._store = KeyStore(self._database, SystemClock())
        self._file = KeyFile(settings)
        self._published: KeyHashes | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="keys", daemon=True)

    def __enter__(self) -> Self:
        self.step()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._database.close()

    def step(self) -> bool:
        """Publish the keys if they changed; say whether they did.

        Raises
        ------
        StorageError
            If the database is away: what was published last goes on to hold.
        """
        found = self._store.hashes()
        if found == self._published:
            return False
        self._file.publish(found)
        self._published = found
        _logger.info("%d keys hold", len(found.keys))
        return True

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_S):
            try:
                self.step()
            except (HeadwaterError, OSError) as error:
                _logger.warning("the keys published before go on to hold: %s", error)


def _scopes(stored: str) -> tuple[Scope, ...]:
    return tuple(scope for scope in SCOPES if scope in stored.split(","))


def _checked(name: str, scopes: Sequence[str]) -> tuple[Scope, ...]:
    if not _NAME.fullmatch(name):
        raise DeclarationError(
            f"{name[:100]!r} cannot name a key", hint="use up to 100 letters, digits and . _ @ -"
        )
    wrong = [scope for scope in scopes if scope not in SCOPES]
    if wrong or not scopes:
        found = f"no scope is called {wrong[0]!r}" if wrong else "a key without a scope may do nothing"
        raise DeclarationError(found, hint=f"give --scope one of {', '.join(SCOPES)}, or several")
    return tuple(scope for scope in SCOPES if scope in scopes)


def _holding(connection: Connection, name: str) -> int | None:
    table = tables.api_key.c
    found = connection.execute(
        select(table.number).where(table.name == name, table.revoked_at_us.is_(None))
    ).scalar_one_or_none()
    return None if found is None else int(found)
