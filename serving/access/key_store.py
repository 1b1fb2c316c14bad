"""API keys in the operational database: shown once, stored as hashes, published to the workers."""

import logging
import re
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Self

import msgspec
from sqlalchemy import Connection, Row, func, insert, select, update

from headwater.infra.clock import Clock, SystemClock, from_us, to_us
from headwater.infra.settings import Settings
from headwater.infra.store.audit import check_note, note
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.serving.access.keys import KeyFile, KeyHash, KeyHashes, hash_of
from headwater.serving.api.operation import SCOPES, Scope
from headwater.serving.published.repeating import Repeating
from headwater.spec.errors import ConflictError, DeclarationError, NotFoundError, few

__all__ = ["Key", "KeyStore", "KeyWatch"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_BEGINNING = "hw"  # lets scanners of leaked secrets find one
_LOOK_S = 0.25
_logger = logging.getLogger("headwater.keys")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored, without its secret.

    Parameters
    ----------
    number
        Its number, which is part of the key.
    name
        Its owner's name; labels that it sends are recorded under this name.
    scopes
        The requests that it allows.
    closes
        The scopes for which requests need a key, this or another, since it was made.
    made_at, made_by
        When it was made, and by whom.
    revoked_at
        When it was revoked; None while it is valid.
    """

    number: int
    name: str
    scopes: tuple[Scope, ...]
    closes: tuple[Scope, ...]
    made_at: datetime
    made_by: str
    revoked_at: datetime | None = None


class KeyStore:
    """Make, list and revoke keys in the operational database.

    Parameters
    ----------
    database, clock
        The operational database, and the time.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(self, name: str, scopes: Iterable[str], *, by: str, closes: Iterable[str] = SCOPES) -> str:
        """Make a key and return it. It is stored as a hash: nothing can return it again.

        Parameters
        ----------
        name
            Its owner's name.
        scopes
            The requests that it allows.
        by
            The maker's name, for the audit.
        closes
            The scopes for which requests need a key from now on, even after this one is revoked.

        Raises
        ------
        DeclarationError
            If the name or a scope is not valid.
        ConflictError
            If a valid key has that name already.
        """
        _check_key_name(name)
        checked = _check_scopes("--scope", list(scopes), "a key without a scope allows nothing")
        closed = _check_scopes("--closes", list(closes), "a key that closes nothing is not needed")
        check_note(by)
        secret, now_us = secrets.token_urlsafe(32), to_us(self._clock.now())
        with self._database.transaction() as connection:
            if _valid_number(connection, name) is not None:
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
                    scopes=",".join(checked),
                    closes=",".join(closed),
                    made_at_us=now_us,
                    made_by=by,
                )
            )
            detail = {"key": name, "scopes": checked, "closes": closed}
            note(connection, now_us, by, "add key", detail=detail)
        return key

    def revoke(self, name: str, *, by: str) -> None:
        """Revoke a key; workers refuse it within a second.

        Raises
        ------
        NotFoundError
            If no valid key has that name.
        """
        if not _NAME.fullmatch(name):
            raise NotFoundError(
                f"no key is called {name[:100]!r}", hint="list them: headwater keys list"
            )
        check_note(by)
        now_us, table = to_us(self._clock.now()), tables.api_key
        with self._database.transaction() as connection:
            number = _valid_number(connection, name)
            if number is None:
                names = connection.execute(select(table.c.name).where(table.c.revoked_at_us.is_(None)))
                there = few(sorted(names.scalars())) or "none"
                raise NotFoundError(f"there is no valid key {name!r}", hint=f"there is {there}")
            connection.execute(
                update(table).where(table.c.number == number).values(revoked_at_us=now_us)
            )
            note(connection, now_us, by, "revoke key", detail={"key": name})

    def keys(self) -> list[Key]:
        """Return all keys, the revoked ones too, oldest first."""
        return [
            Key(
                number=row.number,
                name=row.name,
                scopes=_scopes(row.scopes),
                closes=_scopes(row.closes),
                made_at=from_us(row.made_at_us),
                made_by=row.made_by,
                revoked_at=None if row.revoked_at_us is None else from_us(row.revoked_at_us),
            )
            for row in self._rows()
        ]

    def hashes(self) -> KeyHashes:
        """Return the hashes of the valid keys, for the workers."""
        rows = self._rows()
        return KeyHashes(
            closed=frozenset(scope for row in rows for scope in _scopes(row.closes)),
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
    """Publish the valid keys whenever they change, from a thread of the keeper's process.

    It has its own thread, since the keeper may be busy learning when a key is revoked. It is used in a
    ``with`` block, which publishes the keys when it begins.

    Parameters
    ----------
    settings
        The addresses of the database and of the home folder.
    """

    def __init__(self, settings: Settings) -> None:
        self._database = Database(settings.operational_url)
        self._store = KeyStore(self._database, SystemClock())
        self._file = KeyFile(settings)
        self._published: KeyHashes | None = None
        steps = {"the keys published before stay valid": self.step}
        self._repeating = Repeating("keys", _LOOK_S, steps, _logger)

    def __enter__(self) -> Self:
        self.step()
        self._repeating.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._repeating.__exit__(*error)
        self._database.close()

    def step(self) -> bool:
        """Publish the keys if they changed; return whether they did.

        Raises
        ------
        StorageError
            If the database is away: the keys published last stay valid.
        """
        hashes = self._store.hashes()
        if hashes == self._published:
            return False
        self._file.publish(hashes)
        self._published = hashes
        _logger.info("%d keys are valid", len(hashes.keys))
        return True


def _scopes(stored: str) -> tuple[Scope, ...]:
    return tuple(scope for scope in SCOPES if scope in stored.split(","))


def _check_key_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise DeclarationError(
            f"{name[:100]!r} cannot name a key", hint="use up to 100 letters, digits and . _ @ -"
        )


def _check_scopes(option: str, scopes: Sequence[str], empty: str) -> tuple[Scope, ...]:
    wrong = [scope for scope in scopes if scope not in SCOPES]
    if wrong or not scopes:
        fault = f"there is no scope {wrong[0]!r}" if wrong else empty
        raise DeclarationError(fault, hint=f"give {option} one of {', '.join(SCOPES)}, or several")
    return tuple(scope for scope in SCOPES if scope in scopes)


def _valid_number(connection: Connection, name: str) -> int | None:
    table = tables.api_key.c
    number = connection.execute(
        select(table.number).where(table.name == name, table.revoked_at_us.is_(None))
    ).scalar_one_or_none()
    return None if number is None else int(number)
