"""Make routes of operations: each reads its request within limits, and answers JSON."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.serving.api.operation import Operation
from headwater.serving.api.reply import json_response
from headwater.serving.http.fast_routes import BodyLimits, read_body

__all__ = ["ROUTE_OF_SCOPE", "Endpoint", "route"]

ROUTE_OF_SCOPE = "headwater.route"
"""Key of the ASGI scope that holds the path of the request's operation."""

Endpoint = Callable[[Request], Awaitable[Response]]
_LIMITS = BodyLimits(most_bytes=20_000)
_Body = TypeVar("_Body")


class _AnyText(Convertor[str]):
    """Match any text in a path, with slashes and line breaks too."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        """Return the text as the path holds it."""
        return value

    def to_string(self, value: str) -> str:
        """Return the part of a path that holds a text."""
        return value


register_url_convertor("any", _AnyText())


def route(
    operation: Operation[_Body, Any],
    answer: Callable[[Request, _Body], Awaitable[object]],
    *,
    limits: BodyLimits = _LIMITS,
) -> Route:
    """Make the route of an operation.

    Parameters
    ----------
    operation
        The row of the table.
    answer
        Called with the request and its decoded body or query; returns a response, or a result for JSON.
    limits
        Bounds of a body.
    """

    async def endpoint(request: Request) -> Response:
        request.scope[ROUTE_OF_SCOPE] = operation.path.replace(":any", "")
        body = await read_body(request.scope, request.receive, limits)
        result = await answer(request, operation.decode(body, _query(request)))
        return result if isinstance(result, Response) else json_response(result)

    return Route(operation.path, endpoint, methods=[operation.method], name=operation.name)


def _query(request: Request) -> Mapping[str, str]:
    return request.query_params if request.scope["query_string"] else {}
