"""Requests of operators: ``client.operate.pause("flights")``; they import none of the server.

Each request may be repeated: it names the wanted state, and a state that holds already changes nothing.
"""

from collections.abc import Iterable
from typing import Literal

from headwater.serving.client import calls
from headwater.serving.client.calls import REASON
from headwater.serving.client.sending import AsyncSend, Send
from headwater.spec.recipe import OffsetRange
from headwater.spec.rulings import AppearedClass, Learning, Reign, RoutingStatus, VersionInRole
from headwater.spec.serving.routing import Routing

__all__ = ["AsyncOperatorClient", "OperatorClient"]


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

    def __init__(self, send: Send) -> None:
        self._send = send

    def routing(self, pipeline: str) -> RoutingStatus:
        """Return the routing, its history, and the progress of shadows."""
        return self._send(calls.routing(pipeline))

    def route(
        self,
        pipeline: str,
        routing: Routing | None,
        *,
        reason: str = REASON,
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
        return self._send(calls.route(pipeline, routing, reason, expected))

    def add_shadow(self, pipeline: str, version: str, *, reason: str = REASON) -> RoutingStatus:
        """Let a version predict beside the answer."""
        return self._send(calls.add_shadow(pipeline, version, reason))

    def drop_shadow(self, pipeline: str, version: str, *, reason: str = REASON) -> RoutingStatus:
        """Let a version stop predicting beside the answer."""
        return self._send(calls.drop_shadow(pipeline, version, reason))

    def learning(self, pipeline: str) -> Learning:
        """Return the pause of learning, and the quarantined offsets."""
        return self._send(calls.learning(pipeline))

    def pause(self, pipeline: str, *, reason: str = REASON) -> Learning:
        """Pause online learning."""
        return self._send(calls.learn(pipeline, reason, paused=True))

    def resume(self, pipeline: str, *, reason: str = REASON) -> Learning:
        """Let online learning go on; labels that came meanwhile are learned."""
        return self._send(calls.learn(pipeline, reason, paused=False))

    def quarantine(
        self, pipeline: str, spans: Iterable[OffsetRange], *, reason: str = REASON
    ) -> Learning:
        """Exclude offsets from every later recipe, and at once from online learning."""
        return self._send(calls.quarantine(pipeline, spans, reason))

    def new_classes(self, pipeline: str) -> list[AppearedClass]:
        """List the classes of labels that were not declared when they came, oldest first."""
        return self._send(calls.new_classes(pipeline))

    def name_class(
        self, pipeline: str, name: str, becomes: str | None = None, *, reason: str = REASON
    ) -> list[AppearedClass]:
        """Say what a new class is, so that labels held back for it make examples.

        Parameters
        ----------
        pipeline, reason
            The pipeline's name, and the reason for the audit.
        name
            The class as it was told.
        becomes
            The class that it is really, which is known; its own name is right if not given.
        """
        return self._send(calls.name_class(pipeline, name, becomes, reason))

    def promote(self, pipeline: str, version: str, *, reason: str = REASON) -> Reign:
        """Make a version champion."""
        return self._send(calls.promote(pipeline, version, reason))

    def roll_back(
        self,
        pipeline: str,
        *,
        to: str | None = None,
        quarantine: Iterable[OffsetRange] | Literal["learned"] = (),
        reason: str = REASON,
    ) -> Reign:
        """Return to an earlier champion.

        Parameters
        ----------
        pipeline, reason
            The pipeline's name, and the reason for the audit.
        to
            Number of the version; the champion before this one if not given.
        quarantine
            Offsets that no later recipe learns; ``"learned"`` for all that came since the version to
            return to stopped learning.
        """
        # The version is named in the request, so that sending it twice does not go back twice.
        target = to or calls.previous(self.versions(pipeline, last=1_000))
        return self._send(calls.roll_back(pipeline, target, quarantine, reason))

    def versions(self, pipeline: str, *, last: int = 20) -> list[VersionInRole]:
        """List the newest versions with their roles, oldest first."""
        return self._send(calls.versions(pipeline, last))


class AsyncOperatorClient:
    """Send operators' requests from an event loop, as :class:`OperatorClient` does.

    Parameters
    ----------
    send
        The client's function that sends a request.
    """

    def __init__(self, send: AsyncSend) -> None:
        self._send = send

    async def routing(self, pipeline: str) -> RoutingStatus:
        """Return the routing, its history, and the progress of shadows."""
        return await self._send(calls.routing(pipeline))

    async def route(
        self,
        pipeline: str,
        routing: Routing | None,
        *,
        reason: str = REASON,
        expected: int | None = None,
    ) -> RoutingStatus:
        """Set how requests are routed, as :meth:`OperatorClient.route` does."""
        return await self._send(calls.route(pipeline, routing, reason, expected))

    async def add_shadow(self, pipeline: str, version: str, *, reason: str = REASON) -> RoutingStatus:
        """Let a version predict beside the answer."""
        return await self._send(calls.add_shadow(pipeline, version, reason))

    async def drop_shadow(self, pipeline: str, version: str, *, reason: str = REASON) -> RoutingStatus:
        """Let a version stop predicting beside the answer."""
        return await self._send(calls.drop_shadow(pipeline, version, reason))

    async def learning(self, pipeline: str) -> Learning:
        """Return the pause of learning, and the quarantined offsets."""
        return await self._send(calls.learning(pipeline))

    async def pause(self, pipeline: str, *, reason: str = REASON) -> Learning:
        """Pause online learning."""
        return await self._send(calls.learn(pipeline, reason, paused=True))

    async def resume(self, pipeline: str, *, reason: str = REASON) -> Learning:
        """Let online learning go on; labels that came meanwhile are learned."""
        return await self._send(calls.learn(pipeline, reason, paused=False))

    async def quarantine(
        self, pipeline: str, spans: Iterable[OffsetRange], *, reason: str = REASON
    ) -> Learning:
        """Exclude offsets from every later recipe, as :meth:`OperatorClient.quarantine` does."""
        return await self._send(calls.quarantine(pipeline, spans, reason))

    async def new_classes(self, pipeline: str) -> list[AppearedClass]:
        """List the classes of labels that were not declared when they came, oldest first."""
        return await self._send(calls.new_classes(pipeline))

    async def name_class(
        self, pipeline: str, name: str, becomes: str | None = None, *, reason: str = REASON
    ) -> list[AppearedClass]:
        """Say what a new class is, as :meth:`OperatorClient.name_class` does."""
        return await self._send(calls.name_class(pipeline, name, becomes, reason))

    async def promote(self, pipeline: str, version: str, *, reason: str = REASON) -> Reign:
        """Make a version champion."""
        return await self._send(calls.promote(pipeline, version, reason))

    async def roll_back(
        self,
        pipeline: str,
        *,
        to: str | None = None,
        quarantine: Iterable[OffsetRange] | Literal["learned"] = (),
        reason: str = REASON,
    ) -> Reign:
        """Return to an earlier champion, as :meth:`OperatorClient.roll_back` does."""
        target = to or calls.previous(await self.versions(pipeline, last=1_000))
        return await self._send(calls.roll_back(pipeline, target, quarantine, reason))

    async def versions(self, pipeline: str, *, last: int = 20) -> list[VersionInRole]:
        """List the newest versions with their roles, oldest first."""
        return await self._send(calls.versions(pipeline, last))
