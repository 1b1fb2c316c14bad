"""Who may do what: checks the key of every request before anything else looks at it.

Where no key is needed, :class:`~headwater.infra.same_origin.SameOrigin` says what is let in. With keys
it does not matter: a page elsewhere has no key, whatever name it reaches the service by.
"""

import asyncio
import logging
import math
from collections.abc import Callable

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from headwater.infra.clock import Clock
from headwater.infra.same_origin import SameOrigin
from headwater.infra.settings import Settings
from headwater.serving.access.keys import KeyFile, KeyHash, KeyHashes, found_in
from headwater.serving.access.rate_limits import RateLimits
from headwater.serving.access.required_scopes import scopes_of
from headwater.serving.api.operations import DOCS
from headwater.serving.api.problems import PROBLEM_TYPE, problem_of
from headwater.serving.api.reply import Headers, Reply
from headwater.spec.errors import (
    ForbiddenError,
    HeadwaterError,
    StorageError,
    TooOftenError,
    UnauthorizedError,
)

__all__ = ["BY", "Access", "Authentication"]

BY = "headwater.by"
"""Where a request's ASGI scope bears the name of its key."""

_logger = logging.getLogger("headwater.keys")


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Who may ask a service, and how often.

    Parameters
    ----------
    needs_key
        Whether a request needs a key though none was made: where other machines reach the service.
    rate
        Requests a second for each key, over all workers; None for any.
    """

    needs_key: bool = False
    rate: float | None = None


class Authentication:
    """Wraps the service: lets a request in, or answers 401, 403 or 429.

    Requests need a key from the moment the first was made; they do so still when all are revoked.

    Parameters
    ----------
    app
        The service.
    access
        Who may ask.
    settings, clock
        Where the keys are, and the time.
    refused
        Is told the status of each refusal.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        settings: Settings,
        clock: Clock,
        refused: Callable[[int], None],
    ) -> None:
        self._app = app
        self._file = KeyFile(settings)
        self._rates = None if access.rate is None else RateLimits(settings, access.rate, clock)
        self._refused = refused
        self._access = access
        self._same_origin = SameOrigin(settings.served_hosts)
        self._keys: dict[int, KeyHash] = {}
        self._stamp: tuple[int, int] | None = None
        self._closed = False
        self._needs_key = True
        self.look()

    def look(self) -> None:
        """Take up the keys that hold, if they changed. A file that cannot be read lets nobody in."""
        stamp = self._file.stamp()
        if stamp == self._stamp:
            return
        try:
            found = self._file.read()
        except StorageError as error:
            _logger.error("nobody is let in: %s", error)  # noqa: TRY400 - it says all
            found = KeyHashes(closed=True)
        if found is None:  # never published; or lost, which opens nothing
            found = KeyHashes(closed=self._closed)
        self._stamp, self._closed = stamp, found.closed
        self._keys = {key.number: key for key in found.keys}
        self._needs_key = self._access.needs_key or found.closed

    async def follow(self, every_s: float) -> None:
        """Take up the keys that hold, whenever they change; ends when cancelled."""
        while True:
            self.look()
            await asyncio.sleep(every_s)

    def close(self) -> None:
        """Close the file of rates."""
        if self._rates is not None:
            self._rates.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; or run the service's start and end."""
        if scope["type"] == "http":
            try:
                by = self.admit(scope["method"], scope["path"], scope["headers"])
            except HeadwaterError as error:
                await self.refusal(error, scope["path"]).send(send)
                return
            if by:
                scope[BY] = by
        await self._app(scope, receive, send)

    def admit(self, method: str, path: str, headers: Headers) -> str:
        """Check a request's key, and give its name; nothing where none is needed.

        Raises
        ------
        UnauthorizedError, ForbiddenError, TooOftenError
            If the request is not to be let in; without keys, if it is foreign.
        """
        if not self._needs_key:
            self._same_origin.check(headers, link=path == DOCS.path and method == "GET")
            if self._rates is None:
                return ""
        wanted = scopes_of(method, path)
        if not wanted:
            return ""
        number, by = 0, ""
        if self._needs_key:
            key = found_in(self._keys, _told(headers))
            if key is None:
                raise UnauthorizedError(
                    "the request bears no key that holds",
                    hint="send Authorization: Bearer KEY; headwater keys add makes one",
                )
            if wanted.isdisjoint(key.scopes):
                raise ForbiddenError(
                    f"key {key.name!r} is for {' and '.join(sorted(key.scopes))}",
                    hint=f"this needs a key for {' or '.join(sorted(wanted))}",
                )
            number, by = key.number, key.name
        if self._rates is not None:
            self._rates.take(number)
        return by

    def refusal(self, error: HeadwaterError, path: str) -> Reply:
        """Say why a request is not let in."""
        problem = problem_of(error)
        self._refused(problem.status)
        answer: object = problem
        kind = PROBLEM_TYPE
        if _is_of_protocol(path):
            answer, kind = {"error": str(error)}, b"application/json"
        headers = []
        if isinstance(error, UnauthorizedError):
            headers.append((b"www-authenticate", b'Bearer realm="headwater"'))
        if isinstance(error, TooOftenError):
            headers.append((b"retry-after", b"%d" % math.ceil(error.wait_s)))
        return Reply(problem.status, kind, msgspec.json.encode(answer), headers)


def _is_of_protocol(path: str) -> bool:
    return path == "/v2" or path.startswith("/v2/")


def _told(headers: Headers) -> bytes:
    """Give what a request bears as its key; nothing where there is none, or several."""
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) != 1 or found[0][:7].lower() != b"bearer ":
        return b""
    return found[0][7:].strip()
