"""The routes of operators: a worker passes each request on to the keeper, which alone imports MLflow."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.infra.settings import Settings
from headwater.serving.access.authentication import BY
from headwater.serving.api.keeper_socket import BY_HEADER, socket_file
from headwater.serving.api.operation import Operation
from headwater.serving.api.operations import OPERATIONS
from headwater.serving.http.fast_routes import BodyLimits, Pipelines, named, read_body
from headwater.serving.http.routes import ROUTE_OF_SCOPE
from headwater.spec.errors import NotReadyError, StorageError

__all__ = ["operator_routes"]

_ANSWER_S = 60.0
_LIMITS = BodyLimits(most_bytes=20_000)


def operator_routes(served: Pipelines, settings: Settings) -> list[Route]:
    """Make the routes of all operations that the keeper executes.

    Parameters
    ----------
    served
        The pipelines.
    settings
        The address of the keeper.
    """
    keeper = _Keeper(settings)
    return [_route(row, served, keeper) for row in OPERATIONS if row.call is not None]


def _route(operation: Operation[Any, Any], served: Pipelines, keeper: "_Keeper") -> Route:
    async def endpoint(request: Request) -> Response:
        request.scope[ROUTE_OF_SCOPE] = operation.path
        named(served, request.path_params["pipeline"])
        body = await read_body(request.scope, request.receive, _LIMITS)
        return await keeper.forward(request, body)

    return Route(operation.path, endpoint, methods=[operation.method], name=operation.name)


class _Keeper:
    """A worker's connection to the keeper: HTTP over a Unix socket, with the same paths."""

    def __init__(self, settings: Settings) -> None:
        self._file = socket_file(settings)

    async def forward(self, request: Request, body: bytes) -> Response:
        """Pass a request on with the name of its key; return the keeper's answer unchanged.

        Raises
        ------
        NotReadyError
            If no keeper listens: nothing was done.
        StorageError
            If the keeper ends, or does not answer in time: the request may have been executed.
        """
        import httpx  # noqa: PLC0415 - predicting needs no client

        try:
            transport = httpx.AsyncHTTPTransport(uds=self._file.read_text(), verify=False)
        except (OSError, UnicodeDecodeError) as error:
            raise _away() from error
        by = request.scope.get(BY) or "over HTTP"
        path = f"{quote(request.scope['path'])}?{request.scope['query_string'].decode('latin-1')}"
        async with httpx.AsyncClient(transport=transport, timeout=_ANSWER_S) as client:
            try:
                answer = await client.request(
                    request.method,
                    f"http://keeper{path}",
                    content=body,
                    headers={BY_HEADER: quote(by)},
                )
            except httpx.ConnectError as error:
                raise _away() from error
            except httpx.TransportError as error:
                raise StorageError(
                    "the keeper did not answer", hint="check whether it was done, then send it again"
                ) from error
        return Response(answer.content, answer.status_code, _own(answer.headers))


def _own(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that belong to an answer, without those of the connection."""
    return {name: headers[name] for name in ("content-type", "retry-after") if name in headers}


def _away() -> NotReadyError:
    return NotReadyError("the keeper does not listen", hint="send it again in a moment")
