"""Orchestrating models over HTTP: routing, shadows, learning, champions. The keeper does it."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from headwater.features.record.checks import plain_words
from headwater.infra.settings import Settings
from headwater.serving.access.authentication import BY
from headwater.serving.api.operations import (
    MOST_VERSIONS,
    ChampionBody,
    LearningBody,
    OperatorReply,
    OperatorRequest,
    QuarantineBody,
    RoutingBody,
    ShadowBody,
    VersionsBody,
    socket_file,
)
from headwater.serving.http.fast_routes import Pipelines, named
from headwater.serving.http.limited_route import LimitedRoute, problem_of_status
from headwater.spec import errors
from headwater.spec.errors import HeadwaterError, NotReadyError, SchemaError, StorageError
from headwater.spec.rulings import Learning, Reign, RoutingStatus, VersionInRole

__all__ = ["ORCHESTRATED", "KeeperClient", "operations_router"]

ORCHESTRATED = (
    RoutingStatus,
    RoutingBody,
    ShadowBody,
    Learning,
    LearningBody,
    QuarantineBody,
    Reign,
    ChampionBody,
    VersionInRole,
)
"""What the document has to describe for these routes."""

_MOST_ANSWER_BYTES = 16_000_000
_ANSWER_S = 60.0
_Named = Annotated[str, Path(max_length=63, description="Name of the pipeline")]
_Last = Annotated[int, Query(ge=1, le=MOST_VERSIONS, description="How many of the newest")]
_PROBLEMS = {
    404: "No such pipeline, or no such version",
    408: "The body came too slowly",
    409: "Another ruling came meanwhile, or the version's state does not hold",
    413: "The body is too long",
    422: "It does not fit; the detail names the field",
    503: "The keeper is away or a store refuses: send it again",
}


class KeeperClient:
    """Hands what operators ask for to the keeper, and gives its answer.

    Parameters
    ----------
    settings
        Where the keeper says at which socket it listens.
    """

    def __init__(self, settings: Settings) -> None:
        self._file = socket_file(settings)

    async def ask(self, what: str, pipeline: str, by: str, body: object) -> bytes:
        """Ask; give the result as JSON.

        Raises
        ------
        NotReadyError
            If no keeper listens: nothing was done.
        StorageError
            If it ends, or does not answer in time: it may have been done.
        HeadwaterError
            As the operation does.
        """
        raw = msgspec.Raw(msgspec.json.encode(body))
        line = (
            msgspec.json.encode(OperatorRequest(what=what, pipeline=pipeline, by=by, body=raw)) + b"\n"
        )
        try:
            where = self._file.read_text()
            reader, writer = await asyncio.open_unix_connection(where, limit=_MOST_ANSWER_BYTES)
        except OSError as error:
            raise NotReadyError(
                "the keeper does not listen", hint="send it again in a moment"
            ) from error
        try:
            async with asyncio.timeout(_ANSWER_S):
                writer.write(line)
                await writer.drain()
                answer = await reader.readline()
            return _result(answer)
        except (OSError, TimeoutError) as error:
            raise _unanswered() from error
        finally:
            writer.close()


def _result(answer: bytes) -> bytes:
    if not answer:
        raise _unanswered()
    told = msgspec.json.decode(answer, type=OperatorReply)
    if told.code is None:
        return bytes(told.result)
    known = getattr(errors, told.code, HeadwaterError)
    kind = known if known.__init__ is HeadwaterError.__init__ else HeadwaterError
    raise kind(told.error, told.hint)


def _unanswered() -> StorageError:
    return StorageError("the keeper did not answer", hint="look whether it was done, then send it again")


def operations_router(served: Pipelines, settings: Settings) -> APIRouter:
    """Make the routes below ``/pipelines/{pipeline}``.

    Parameters
    ----------
    served
        The pipelines.
    settings
        Where the keeper is found.
    """
    router = APIRouter(
        prefix="/pipelines/{pipeline}",
        tags=["operations"],
        route_class=LimitedRoute,
        default_response_class=Response,
        responses={status: problem_of_status(words) for status, words in _PROBLEMS.items()},
    )
    asking = _Asking(served, KeeperClient(settings))
    _add_routing(router, asking)
    _add_learning(router, asking)
    _add_versions(router, asking)
    return router


class _Asking:
    """Reads requests, and asks the keeper."""

    def __init__(self, served: Pipelines, keeping: KeeperClient) -> None:
        self._served = served
        self._keeping = keeping

    async def look(self, what: str, name: str, body: object = None) -> Response:
        """Ask for something that changes nothing."""
        pipeline = named(self._served, name).pipeline.name
        return _json(await self._keeping.ask(what, pipeline, "", {} if body is None else body))

    async def rule(self, what: str, name: str, request: Request, kind: type[Any]) -> Response:
        """Ask for a ruling."""
        pipeline = named(self._served, name).pipeline.name
        body = _decoded(await request.body(), kind)
        by = request.scope.get(BY) or "over HTTP"
        return _json(await self._keeping.ask(what, pipeline, by, body))


def _add_routing(router: APIRouter, asking: _Asking) -> None:
    @router.get("/routing", responses=_told(RoutingStatus))
    async def routing(pipeline: _Named) -> Response:
        """Say how requests are routed, who decided that, and how far shadows are."""
        return await asking.look("routing", pipeline)

    @router.put("/routing", responses=_told(RoutingStatus), openapi_extra=_takes(RoutingBody))
    async def route(pipeline: _Named, request: Request) -> Response:
        """Set how requests are routed; workers follow within a moment, between two requests."""
        return await asking.rule("route", pipeline, request, RoutingBody)

    @router.post("/shadows/add", responses=_told(RoutingStatus), openapi_extra=_takes(ShadowBody))
    async def add_shadow(pipeline: _Named, request: Request) -> Response:
        """Let a version predict beside the answer, from the next prediction on."""
        return await asking.rule("add shadow", pipeline, request, ShadowBody)

    @router.post("/shadows/drop", responses=_told(RoutingStatus), openapi_extra=_takes(ShadowBody))
    async def drop_shadow(pipeline: _Named, request: Request) -> Response:
        """Let a version predict beside the answer no more; what it said is kept."""
        return await asking.rule("drop shadow", pipeline, request, ShadowBody)


def _add_learning(router: APIRouter, asking: _Asking) -> None:
    @router.get("/learning", responses=_told(Learning))
    async def learning(pipeline: _Named) -> Response:
        """Say whether learning is paused, by whom, and what is quarantined."""
        return await asking.look("learning", pipeline)

    @router.put("/learning", responses=_told(Learning), openapi_extra=_takes(LearningBody))
    async def learn(pipeline: _Named, request: Request) -> Response:
        """Pause learning each label, or let it go on: nothing that came meanwhile is lost."""
        return await asking.rule("learn", pipeline, request, LearningBody)

    @router.post("/quarantine", responses=_told(Learning), openapi_extra=_takes(QuarantineBody))
    async def quarantine(pipeline: _Named, request: Request) -> Response:
        """Leave offsets out of every later recipe, and at once of what is learned label by label."""
        return await asking.rule("quarantine", pipeline, request, QuarantineBody)


def _add_versions(router: APIRouter, asking: _Asking) -> None:
    @router.get("/versions", responses=_told_many(VersionInRole))
    async def versions(pipeline: _Named, last: _Last = 20) -> Response:
        """List the newest versions with what they do now, oldest first."""
        return await asking.look("versions", pipeline, VersionsBody(last=last))

    @router.post("/champion", responses=_told(Reign), openapi_extra=_takes(ChampionBody))
    async def champion(pipeline: _Named, request: Request) -> Response:
        """Promote a version once its state is verified, or roll back to an earlier champion.

        To repeat it is safe where the version is named.
        """
        return await asking.rule("champion", pipeline, request, ChampionBody)


def _decoded(body: bytes, kind: type[Any]) -> object:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise SchemaError(plain_words(error), hint="see /docs") from error
    except errors.DeclarationError as error:
        raise SchemaError(error.what, error.hint) from error


def _json(result: bytes) -> Response:
    return Response(result, media_type="application/json")


def _reference(kind: type[msgspec.Struct]) -> Mapping[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _told(kind: type[msgspec.Struct]) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "Done", "content": {"application/json": {"schema": _reference(kind)}}}}


def _told_many(kind: type[msgspec.Struct]) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "array", "items": _reference(kind)}
    return {200: {"description": "Done", "content": {"application/json": {"schema": schema}}}}


def _takes(kind: type[msgspec.Struct]) -> dict[str, Any]:
    content = {"application/json": {"schema": _reference(kind)}}
    return {"requestBody": {"required": True, "content": content}}
