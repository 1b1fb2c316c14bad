"""Requests of operators: ``client.operate.pause("flights")``; they import none of the server.

Each request may be repeated: it names the wanted state, and a state that holds already changes nothing.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec

from headwater.serving.api.operations import (
    ChampionBody,
    LearningBody,
    OffsetSpan,
    QuarantineBody,
    RoutingBody,
    ShadowBody,
)
from headwater.spec.errors import NotFoundError
from headwater.spec.recipe import OffsetRange
from headwater.spec.rulings import Learning, Reign, RoutingStatus, VersionInRole
from headwater.spec.serving.routing import Routing

__all__ = ["AsyncOperatorClient", "OperatorClient"]

_Answer = TypeVar("_Answer")
_REASON = "through the client"


class _Request(NamedTuple):
    """A request of an operator."""

    method: str
    path: str
    body: bytes | None
    params: dict[str, str] | None


class OperatorClient:
    """Send operators' requests and wait for each answer; :attr:`Client.operate` is one.

    Each method takes a pipeline's name, and raises the error of the service: SchemaError if the request
    does not fit, NotFoundError if there is no such pipeline or version, ConflictError if another ruling
    came meanwhile, NotReadyError if the keeper is away.

    Parameters
    ----------
    send
        The client's function that sends a request.
    """

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send

    def routing(self, pipeline: str) -> RoutingStatus:
        """Return the routing, its history, and the progress of shadows."""
        return self._ask(_get(pipeline, "routing"), RoutingStatus)

    def route(
        self,
        pipeline: str,
        routing: Routing | None,
        *,
        reason: str = _REASON,
        expected: int | None = None,
    ) -> RoutingStatus:
        """Set how requests are routed; None returns to what the pipeline declares.

        Parameters
        ----------
        pipeline, routing, reason
            The pipeline's name, the routing, and the reason for the audit.
        expected
            Number of the ruling that the operator saw; without it, the last request wins.
        """
        body = RoutingBody(routing=routing, reason=reason, expected=expected)
        return self._ask(_put(pipeline, "routing", body), RoutingStatus)

    def add_shadow(self, pipeline: str, version: str, *, reason: str = _REASON) -> RoutingStatus:
        """Let a version predict beside the answer."""
        return self._ask(_post(pipeline, "shadows/add", _shadow(version, reason)), RoutingStatus)

    def drop_shadow(self, pipeline: str, version: str, *, reason: str = _REASON) -> RoutingStatus:
        """Let a version stop predicting beside the answer."""
        return self._ask(_post(pipeline, "shadows/drop", _shadow(version, reason)), RoutingStatus)

    def learning(self, pipeline: str) -> Learning:
        """Return the pause of learning, and the quarantined offsets."""
        return self._ask(_get(pipeline, "learning"), Learning)

    def pause(self, pipeline: str, *, reason: str = _REASON) -> Learning:
        """Pause online learning."""
        body = LearningBody(paused=True, reason=reason)
        return self._ask(_put(pipeline, "learning", body), Learning)

    def resume(self, pipeline: str, *, reason: str = _REASON) -> Learning:
        """Let online learning go on; labels that came meanwhile are learned."""
        body = LearningBody(paused=False, reason=reason)
        return self._ask(_put(pipeline, "learning", body), Learning)

    def quarantine(
        self, pipeline: str, spans: Iterable[OffsetRange], *, reason: str = _REASON
    ) -> Learning:
        """Exclude offsets from every later recipe, and at once from online learning."""
        body = QuarantineBody(spans=_spans(spans), reason=reason)
        return self._ask(_post(pipeline, "quarantine", body), Learning)

    def promote(self, pipeline: str, version: str, *, reason: str = _REASON) -> Reign:
        """Make a version champion."""
        return self._ask(_post(pipeline, "champion", _champion(version, reason)), Reign)

    def roll_back(
        self,
        pipeline: str,
        *,
        to: str | None = None,
        quarantine: Iterable[OffsetRange] = (),
        reason: str = _REASON,
    ) -> Reign:
        """Return to an earlier champion.

        Parameters
        ----------
        pipeline, reason
            The pipeline's name, and the reason for the audit.
        to
            Number of the version; the champion before this one if not given.
        quarantine
            Offsets that no later recipe learns.
        """
        # The version is named in the request, so that sending it twice does not go back twice.
        target = to or _previous(self.versions(pipeline, last=1_000))
        return self._ask(_post(pipeline, "champion", _return(target, quarantine, reason)), Reign)

    def versions(self, pipeline: str, *, last: int = 20) -> list[VersionInRole]:
        """List the newest versions with their roles, oldest first."""
        return self._ask(_get(pipeline, "versions", last=str(last)), list[VersionInRole])

    def _ask(self, request: _Request, kind: type[_Answer]) -> _Answer:
        answer: _Answer = self._send(request.method, request.path, request.body, kind, request.params)
        return answer


class AsyncOperatorClient:
    """Send operators' requests from an event loop, as :class:`OperatorClient` does.

    Parameters
    ----------
    send
        The client's function that sends a request.
    """

    def __init__(self, send: Callable[..., Awaitable[Any]]) -> None:
        self._send = send

    async def routing(self, pipeline: str) -> RoutingStatus:
        """Return the routing, its history, and the progress of shadows."""
        return await self._ask(_get(pipeline, "routing"), RoutingStatus)

    async def route(
        self,
        pipeline: str,
        routing: Routing | None,
        *,
        reason: str = _REASON,
        expected: int | None = None,
    ) -> RoutingStatus:
        """Set how requests are routed, as :meth:`OperatorClient.route` does."""
        body = RoutingBody(routing=routing, reason=reason, expected=expected)
        return await self._ask(_put(pipeline, "routing", body), RoutingStatus)

    async def add_shadow(self, pipeline: str, version: str, *, reason: str = _REASON) -> RoutingStatus:
        """Let a version predict beside the answer."""
        return await self._ask(_post(pipeline, "shadows/add", _shadow(version, reason)), RoutingStatus)

    async def drop_shadow(self, pipeline: str, version: str, *, reason: str = _REASON) -> RoutingStatus:
        """Let a version stop predicting beside the answer."""
        return await self._ask(_post(pipeline, "shadows/drop", _shadow(version, reason)), RoutingStatus)

    async def learning(self, pipeline: str) -> Learning:
        """Return the pause of learning, and the quarantined offsets."""
        return await self._ask(_get(pipeline, "learning"), Learning)

    async def pause(self, pipeline: str, *, reason: str = _REASON) -> Learning:
        """Pause online learning."""
        body = LearningBody(paused=True, reason=reason)
        return await self._ask(_put(pipeline, "learning", body), Learning)

    async def resume(self, pipeline: str, *, reason: str = _REASON) -> Learning:
        """Let online learning go on; labels that came meanwhile are learned."""
        body = LearningBody(paused=False, reason=reason)
        return await self._ask(_put(pipeline, "learning", body), Learning)

    async def quarantine(
        self, pipeline: str, spans: Iterable[OffsetRange], *, reason: str = _REASON
    ) -> Learning:
        """Exclude offsets from every later recipe, as :meth:`OperatorClient.quarantine` does."""
        body = QuarantineBody(spans=_spans(spans), reason=reason)
        return await self._ask(_post(pipeline, "quarantine", body), Learning)

    async def promote(self, pipeline: str, version: str, *, reason: str = _REASON) -> Reign:
        """Make a version champion."""
        return await self._ask(_post(pipeline, "champion", _champion(version, reason)), Reign)

    async def roll_back(
        self,
        pipeline: str,
        *,
        to: str | None = None,
        quarantine: Iterable[OffsetRange] = (),
        reason: str = _REASON,
    ) -> Reign:
        """Return to an earlier champion, as :meth:`OperatorClient.roll_back` does."""
        target = to or _previous(await self.versions(pipeline, last=1_000))
        return await self._ask(_post(pipeline, "champion", _return(target, quarantine, reason)), Reign)

    async def versions(self, pipeline: str, *, last: int = 20) -> list[VersionInRole]:
        """List the newest versions with their roles, oldest first."""
        return await self._ask(_get(pipeline, "versions", last=str(last)), list[VersionInRole])

    async def _ask(self, request: _Request, kind: type[_Answer]) -> _Answer:
        answer: _Answer = await self._send(
            request.method, request.path, request.body, kind, request.params
        )
        return answer


def _get(pipeline: str, what: str, **params: str) -> _Request:
    return _Request("GET", _path(pipeline, what), None, params or None)


def _put(pipeline: str, what: str, body: msgspec.Struct) -> _Request:
    return _Request("PUT", _path(pipeline, what), msgspec.json.encode(body), None)


def _post(pipeline: str, what: str, body: msgspec.Struct) -> _Request:
    return _Request("POST", _path(pipeline, what), msgspec.json.encode(body), None)


def _path(pipeline: str, what: str) -> str:
    return f"/pipelines/{quote(pipeline, safe='')}/{what}"


def _shadow(version: str, reason: str) -> ShadowBody:
    return ShadowBody(version=version, reason=reason)


def _champion(version: str, reason: str) -> ChampionBody:
    return ChampionBody(version=version, reason=reason)


def _return(version: str, quarantine: Iterable[OffsetRange], reason: str) -> ChampionBody:
    spans = _spans(quarantine)
    return ChampionBody(version=version, rollback=True, quarantine=spans, reason=reason)


def _spans(spans: Iterable[OffsetRange]) -> tuple[OffsetSpan, ...]:
    return tuple(OffsetSpan(start=span.start, stop=span.stop) for span in spans)


def _previous(versions: Iterable[VersionInRole]) -> str:
    for version in versions:
        if "previous" in version.roles:
            return version.number
    raise NotFoundError("there is no earlier champion", hint="name a version to return to")
