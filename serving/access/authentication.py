"""Authentication: check the key of every request before anything else reads the request.

Keys close scopes: a request needs a key if every scope that allows it is closed. If it needs none and
bears none, :class:`~headwater.infra.same_origin.SameOrigin` decides whether it is let in. With a key the
origin does not matter: a page of another site has no key.
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
from headwater.infra.store.published_file import LOAD_ERRORS, Follower, reason_of
from headwater.serving.access.cross_origin import CrossOrigin
from headwater.serving.access.keys import KeyFile, KeyHash, KeyHashes, find_key
from headwater.serving.access.rate_limits import RateLimits
from headwater.serving.access.required_scopes import scopes_of
from headwater.serving.api import operation
from headwater.serving.api.operations import DOCS
from headwater.serving.api.problems import PROBLEM_TYPE, problem_of
from headwater.serving.api.reply import Headers, Reply
from headwater.spec.errors import (
    ForbiddenError,
    HeadwaterError,
    TooOftenError,
    UnauthorizedError,
)

__all__ = ["BY", "Access", "Authentication"]

BY = "headwater.by"
"""Key of the ASGI scope that holds the name of the request's API key."""

_ALL = frozenset(operation.SCOPES)

_logger = logging.getLogger("headwater.keys")


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests need a key, and how many each key may send.

    Parameters
    ----------
    needs_key
        Whether every scope is closed even before the first key is made, as it must be if other machines
        reach the service.
    rate
        Requests a second for each key, over all workers; None for no limit.
    """

    needs_key: bool = False
    rate: float | None = None


class Authentication:
    """Wrap the service: let a request in, or answer it with 401, 403 or 429.

    A scope is closed once a key was made that closes it, even after all keys are revoked.

    Parameters
    ----------
    app
        The service.
    access
        Whether requests need a key, and the rate of each key.
    settings, clock
        The home folder, which holds the keys, and the time.
    refused
        Called with the status of each refusal.

    Attributes
    ----------
    cross_origin
        Shares answers with pages of the hosts that the settings list; None if they list none.
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
        self.cross_origin = CrossOrigin(self._same_origin) if settings.served_hosts else None
        self._keys: dict[int, KeyHash] = {}
        self._follower = Follower(self._file)
        self._closed: frozenset[operation.Scope] = frozenset()
        self.reload()

    def reload(self) -> None:
        """Read the valid keys if they changed; if the file cannot be read, no request is let in."""
        if not self._follower.is_due():
            return
        try:
            published = self._file.read()
        except LOAD_ERRORS as error:
            if self._follower.failed(error):
                _logger.error("no request is let in: %s", reason_of(error))  # noqa: TRY400 - it says all
            published = KeyHashes(closed=_ALL)
        if published is None:  # never published; or lost, which opens nothing
            published = KeyHashes(closed=self._closed)
        self._closed = _ALL if self._access.needs_key else published.closed
        self._keys = {key.number: key for key in published.keys}

    async def follow(self, every_s: float) -> None:
        """Read the valid keys again whenever they change, until cancelled."""
        while True:
            self.reload()
            await asyncio.sleep(every_s)

    def close(self) -> None:
        """Close the file of rates."""
        if self._rates is not None:
            self._rates.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the start and end of the service."""
        if scope["type"] == "http":
            if self.cross_origin is not None:
                leave = self.cross_origin.preflight(scope["method"], scope["headers"])
                if leave is not None:
                    await leave.send(send)
                    return
                send = self.cross_origin.sharing(scope["headers"], send)
            try:
                by = self.admit(scope["method"], scope["path"], scope["headers"])
            except HeadwaterError as error:
                await self.refusal(error, scope["path"]).send(send)
                return
            if by:
                scope[BY] = by
        await self._app(scope, receive, send)

    def admit(self, method: str, path: str, headers: Headers) -> str:
        """Check a request's key, and return its name; the name is empty if the request bears no key.

        A key that is sent where none is needed is checked, too: what it should be good for, such as the
        name on a label, would be lost silently.

        Raises
        ------
        UnauthorizedError, ForbiddenError, TooOftenError
            If the key is missing, not valid, not for this or used too often.
        ForeignRequestError
            If the request needs no key, bears none, and comes from another site.
        """
        required = scopes_of(method, path)
        closed = required <= self._closed if required else self._closed == _ALL
        key = self._key(headers) if required else None
        if key is None and not closed:
            self._same_origin.check(headers, link=path == DOCS.path and method == "GET")
        if not required:
            return ""
        number, by = 0, ""
        if key is not None:
            number, by = key.number, key.name
        if closed:
            _check_scopes(key, required)
        if self._rates is not None:
            self._rates.take(number)
        return by

    def _key(self, headers: Headers) -> KeyHash | None:
        """Return the key that a request bears; None if it bears none.

        Raises
        ------
        UnauthorizedError
            If it is not valid.
        """
        for name, _ in headers:  # of every prediction
            if name == b"authorization":
                break
        else:
            return None
        sent = [value for name, value in headers if name == b"authorization"]
        bears = len(sent) == 1 and sent[0][:7].lower() == b"bearer "
        key = find_key(self._keys, sent[0][7:].strip()) if bears else None
        if key is None:
            raise UnauthorizedError(
                "the key of the request is not valid",
                hint="send Authorization: Bearer KEY; headwater keys add makes one",
            )
        return key

    def refusal(self, error: HeadwaterError, path: str) -> Reply:
        """Build the reply to a request that is not let in."""
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


def _check_scopes(key: KeyHash | None, required: frozenset[operation.Scope]) -> None:
    """Accept the key of a request that needs one, or raise."""
    if key is None:
        kept = "operator.key of the home has one, " if "operate" in required else ""
        raise UnauthorizedError(
            "the request has no key, and needs one",
            hint=f"send Authorization: Bearer KEY; {kept}headwater keys add makes one",
        )
    if required.isdisjoint(key.scopes):
        raise ForbiddenError(
            f"key {key.name!r} is for {' and '.join(sorted(key.scopes))}",
            hint=f"this needs a key for {' or '.join(sorted(required))}",
        )
