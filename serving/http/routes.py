"""The routes of the table of operations: each reads its request within bounds, and answers JSON."""

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
"""Where a request's ASGI scope bears the path of its operation."""

Endpoint = Callable[[Request], Awaitable[Response]]
_LIMITS = BodyLimits(most_bytes=20_000)
_Body = TypeVar("_Body")


class _AnyText(Convertor[str]):
    """Takes any text of a path: with slashes, and lines."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        """Return the text as it stands in the path."""
        return value

    def to_string(self, value: str) -> str:
        """Return the path of a text."""
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
        Called with the request and what it holds; returns a whole response, or what is written as JSON.
    limits
        Bounds of a body.
    """

    async def endpoint(request: Request) -> Response:
        request.scope[ROUTE_OF_SCOPE] = operation.path.replace(":any", "")
        body = await read_body(request.scope, request.receive, limits)
        found = await answer(request, operation.decode(body, _query(request)))
        return found if isinstance(found, Response) else json_response(found)

    return Route(operation.path, endpoint, methods=[operation.method], name=operation.name)


def _query(request: Request) -> Mapping[str, str]:
    return request.query_params if request.scope["query_string"] else {}
