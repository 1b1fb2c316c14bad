"""Operate models over HTTP: routing, shadows, learning, champions. The keeper executes the requests."""

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
"""The types that the OpenAPI document describes for these routes."""

_MOST_ANSWER_BYTES = 16_000_000
_ANSWER_S = 60.0
_Named = Annotated[str, Path(max_length=63, description="Name of the pipeline")]
_Last = Annotated[int, Query(ge=1, le=MOST_VERSIONS, description="How many of the newest")]
_PROBLEMS = {
    404: "No such pipeline, or no such version",
    408: "The body came too slowly",
    409: "Another ruling came meanwhile, or the version's state fails its check",
    413: "The body is too long",
    422: "The request does not fit; the detail names the field",
    503: "The keeper or a store is away: send it again",
}


class KeeperClient:
    """Pass operators' requests on to the keeper, and return its replies.

    Parameters
    ----------
    settings
        The address of the file that names the keeper's socket.
    """

    def __init__(self, settings: Settings) -> None:
        self._file = socket_file(settings)

    async def ask(self, what: str, pipeline: str, by: str, body: object) -> bytes:
        """Send a request; return the result as JSON.

        Raises
        ------
        NotReadyError
            If no keeper listens: nothing was done.
        StorageError
            If the keeper ends, or does not reply in time: the request may have been executed.
        HeadwaterError
            The error of the operation.
        """
        raw = msgspec.Raw(msgspec.json.encode(body))
        line = (
            msgspec.json.encode(OperatorRequest(what=what, pipeline=pipeline, by=by, body=raw)) + b"\n"
        )
        try:
            socket_path = self._file.read_text()
            reader, writer = await asyncio.open_unix_connection(socket_path, limit=_MOST_ANSWER_BYTES)
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
    reply = msgspec.json.decode(answer, type=OperatorReply)
    if reply.code is None:
        return bytes(reply.result)
    error_type = getattr(errors, reply.code, HeadwaterError)
    kind = error_type if error_type.__init__ is HeadwaterError.__init__ else HeadwaterError
    raise kind(reply.error, reply.hint)


def _unanswered() -> StorageError:
    return StorageError(
        "the keeper did not answer", hint="check whether it was done, then send it again"
    )


def operations_router(served: Pipelines, settings: Settings) -> APIRouter:
    """Make the routes below ``/pipelines/{pipeline}``.

    Parameters
    ----------
    served
        The pipelines.
    settings
        The address of the keeper.
    """
    router = APIRouter(
        prefix="/pipelines/{pipeline}",
        tags=["operations"],
        route_class=LimitedRoute,
        default_response_class=Response,
        responses={status: problem_of_status(words) for status, words in _PROBLEMS.items()},
    )
    requests = _KeeperRequests(served, KeeperClient(settings))
    _add_routing(router, requests)
    _add_learning(router, requests)
    _add_versions(router, requests)
    return router


class _KeeperRequests:
    """Reads requests, and sends them to the keeper."""

    def __init__(self, served: Pipelines, keeper: KeeperClient) -> None:
        self._served = served
        self._keeper = keeper

    async def look(self, what: str, name: str, body: object = None) -> Response:
        """Send a request that changes nothing."""
        pipeline = named(self._served, name).pipeline.name
        return _json(await self._keeper.ask(what, pipeline, "", {} if body is None else body))

    async def rule(self, what: str, name: str, request: Request, kind: type[Any]) -> Response:
        """Send a request for a ruling."""
        pipeline = named(self._served, name).pipeline.name
        body = _decoded(await request.body(), kind)
        by = request.scope.get(BY) or "over HTTP"
        return _json(await self._keeper.ask(what, pipeline, by, body))


def _add_routing(router: APIRouter, requests: _KeeperRequests) -> None:
    @router.get("/routing", responses=_returns(RoutingStatus))
    async def routing(pipeline: _Named) -> Response:
        """Return the routing, its history, and the progress of shadows."""
        return await requests.look("routing", pipeline)

    @router.put("/routing", responses=_returns(RoutingStatus), openapi_extra=_takes(RoutingBody))
    async def route(pipeline: _Named, request: Request) -> Response:
        """Set how requests are routed; workers follow within a moment, between two requests."""
        return await requests.rule("route", pipeline, request, RoutingBody)

    @router.post("/shadows/add", responses=_returns(RoutingStatus), openapi_extra=_takes(ShadowBody))
    async def add_shadow(pipeline: _Named, request: Request) -> Response:
        """Let a version predict beside the answer, from the next prediction on."""
        return await requests.rule("add shadow", pipeline, request, ShadowBody)

    @router.post("/shadows/drop", responses=_returns(RoutingStatus), openapi_extra=_takes(ShadowBody))
    async def drop_shadow(pipeline: _Named, request: Request) -> Response:
        """Let a version stop predicting beside the answer; its outputs are kept."""
        return await requests.rule("drop shadow", pipeline, request, ShadowBody)


def _add_learning(router: APIRouter, requests: _KeeperRequests) -> None:
    @router.get("/learning", responses=_returns(Learning))
    async def learning(pipeline: _Named) -> Response:
        """Return the pause of learning, and the quarantined offsets."""
        return await requests.look("learning", pipeline)

    @router.put("/learning", responses=_returns(Learning), openapi_extra=_takes(LearningBody))
    async def learn(pipeline: _Named, request: Request) -> Response:
        """Pause online learning, or let it go on; labels that came meanwhile are not lost."""
        return await requests.rule("learn", pipeline, request, LearningBody)

    @router.post("/quarantine", responses=_returns(Learning), openapi_extra=_takes(QuarantineBody))
    async def quarantine(pipeline: _Named, request: Request) -> Response:
        """Exclude offsets from every later recipe, and at once from online learning."""
        return await requests.rule("quarantine", pipeline, request, QuarantineBody)


def _add_versions(router: APIRouter, requests: _KeeperRequests) -> None:
    @router.get("/versions", responses=_returns_many(VersionInRole))
    async def versions(pipeline: _Named, last: _Last = 20) -> Response:
        """List the newest versions with their roles, oldest first."""
        return await requests.look("versions", pipeline, VersionsBody(last=last))

    @router.post("/champion", responses=_returns(Reign), openapi_extra=_takes(ChampionBody))
    async def champion(pipeline: _Named, request: Request) -> Response:
        """Promote a version once its state is verified, or roll back to an earlier champion.

        The request may be repeated if it names the version.
        """
        return await requests.rule("champion", pipeline, request, ChampionBody)


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


def _returns(kind: type[msgspec.Struct]) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "Done", "content": {"application/json": {"schema": _reference(kind)}}}}


def _returns_many(kind: type[msgspec.Struct]) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "array", "items": _reference(kind)}
    return {200: {"description": "Done", "content": {"application/json": {"schema": schema}}}}


def _takes(kind: type[msgspec.Struct]) -> dict[str, Any]:
    content = {"application/json": {"schema": _reference(kind)}}
    return {"requestBody": {"required": True, "content": content}}
