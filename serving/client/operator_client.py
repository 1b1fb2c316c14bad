"""What a client asks for as an operator: ``client.operate.pause("flights")``; needs no server code.

Each request may be sent again: it names what is to be, and what is so already changes nothing.
"""

from collections.abc import Iterable

from headwater.serving.client import calls
from headwater.serving.client.calls import REASON
from headwater.serving.client.sending import AsyncSend, Send
from headwater.spec.recipe import OffsetRange
from headwater.spec.rulings import Learning, Reign, RoutingStatus, VersionInRole
from headwater.spec.serving.routing import Routing

__all__ = ["AsyncOperatorClient", "OperatorClient"]


class OperatorClient:
    """What an operator asks for, and waits for; :attr:`Client.operate` gives it.

    A pipeline is given by its name. Each raises what the service says: SchemaError where something does
    not fit, NotFoundError where a pipeline or version does not exist, ConflictError where another ruling
    came meanwhile, NotReadyError where the keeper is away.

    Parameters
    ----------
    send
        The client's.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    def routing(self, pipeline: str) -> RoutingStatus:
        """Say how requests are routed."""
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
            Whose, how, and why.
        expected
            Number of the ruling that was seen; the last one to write wins where not given.
        """
        return self._send(calls.route(pipeline, routing, reason, expected))

    def add_shadow(self, pipeline: str, version: str, *, reason: str = REASON) -> RoutingStatus:
        """Let a version predict beside the answer."""
        return self._send(calls.add_shadow(pipeline, version, reason))

    def drop_shadow(self, pipeline: str, version: str, *, reason: str = REASON) -> RoutingStatus:
        """Let a version predict beside the answer no more."""
        return self._send(calls.drop_shadow(pipeline, version, reason))

    def learning(self, pipeline: str) -> Learning:
        """Say whether learning is paused, and what is quarantined."""
        return self._send(calls.learning(pipeline))

    def pause(self, pipeline: str, *, reason: str = REASON) -> Learning:
        """Pause learning each label."""
        return self._send(calls.learn(pipeline, reason, paused=True))

    def resume(self, pipeline: str, *, reason: str = REASON) -> Learning:
        """Let learning each label go on; what came meanwhile is learned."""
        return self._send(calls.learn(pipeline, reason, paused=False))

    def quarantine(
        self, pipeline: str, spans: Iterable[OffsetRange], *, reason: str = REASON
    ) -> Learning:
        """Leave offsets out of every later recipe, and at once of what is learned label by label."""
        return self._send(calls.quarantine(pipeline, spans, reason))

    def promote(self, pipeline: str, version: str, *, reason: str = REASON) -> Reign:
        """Make a version champion."""
        return self._send(calls.promote(pipeline, version, reason))

    def roll_back(
        self,
        pipeline: str,
        *,
        to: str | None = None,
        quarantine: Iterable[OffsetRange] = (),
        reason: str = REASON,
    ) -> Reign:
        """Return to an earlier champion.

        Parameters
        ----------
        pipeline, reason
            Whose, and why.
        to
            Which version; the champion before this one where not given.
        quarantine
            Offsets that are not to be learned again.
        """
        # The version is named in the request, so that sending it twice does not go back twice.
        target = to or calls.previous(self.versions(pipeline, last=1_000))
        return self._send(calls.roll_back(pipeline, target, quarantine, reason))

    def versions(self, pipeline: str, *, last: int = 20) -> list[VersionInRole]:
        """List the newest versions with what they do now, oldest first."""
        return self._send(calls.versions(pipeline, last))


class AsyncOperatorClient:
    """What an operator asks for, for an event loop; as :class:`OperatorClient`.

    Parameters
    ----------
    send
        The client's.
    """

    def __init__(self, send: AsyncSend) -> None:
        self._send = send

    async def routing(self, pipeline: str) -> RoutingStatus:
        """Say how requests are routed."""
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
        """Let a version predict beside the answer no more."""
        return await self._send(calls.drop_shadow(pipeline, version, reason))

    async def learning(self, pipeline: str) -> Learning:
        """Say whether learning is paused, and what is quarantined."""
        return await self._send(calls.learning(pipeline))

    async def pause(self, pipeline: str, *, reason: str = REASON) -> Learning:
        """Pause learning each label."""
        return await self._send(calls.learn(pipeline, reason, paused=True))

    async def resume(self, pipeline: str, *, reason: str = REASON) -> Learning:
        """Let learning each label go on; what came meanwhile is learned."""
        return await self._send(calls.learn(pipeline, reason, paused=False))

    async def quarantine(
        self, pipeline: str, spans: Iterable[OffsetRange], *, reason: str = REASON
    ) -> Learning:
        """Leave offsets out of every later recipe, as :meth:`OperatorClient.quarantine` does."""
        return await self._send(calls.quarantine(pipeline, spans, reason))

    async def promote(self, pipeline: str, version: str, *, reason: str = REASON) -> Reign:
        """Make a version champion."""
        return await self._send(calls.promote(pipeline, version, reason))

    async def roll_back(
        self,
        pipeline: str,
        *,
        to: str | None = None,
        quarantine: Iterable[OffsetRange] = (),
        reason: str = REASON,
    ) -> Reign:
        """Return to an earlier champion, as :meth:`OperatorClient.roll_back` does."""
        target = to or calls.previous(await self.versions(pipeline, last=1_000))
        return await self._send(calls.roll_back(pipeline, target, quarantine, reason))

    async def versions(self, pipeline: str, *, last: int = 20) -> list[VersionInRole]:
        """List the newest versions with what they do now, oldest first."""
        return await self._send(calls.versions(pipeline, last))
