"""Routes of the framework that read bodies within limits, and name the field that they refuse."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from headwater.serving.api.problems import PROBLEM_TYPE
from headwater.serving.http.fast_routes import BodyLimits, read_body
from headwater.spec.errors import SchemaError

__all__ = ["LimitedRoute", "problem_of_status"]

_LIMITS = BodyLimits(most_bytes=20_000)


class LimitedRoute(APIRoute):
    """A route that reads bodies within limits, and names the field that it refuses."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override] # the same, named by its protocol
        """Return the handler that FastAPI calls."""
        handler = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            body = await read_body(request.scope, request.receive, _LIMITS)
            if request.method in {"POST", "PUT"}:
                _check_json(body)

            async def receive() -> Message:
                return {"type": "http.request", "body": body, "more_body": False}

            try:
                return await handler(Request(request.scope, receive))
            except RequestValidationError as error:
                raise _misfit(error) from error

        return bounded


def problem_of_status(words: str) -> dict[str, Any]:
    """Describe a problem for the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": words, "content": {PROBLEM_TYPE.decode(): {"schema": schema}}}


def _check_json(body: bytes) -> None:
    """Refuse a body that is not JSON, before a parser that would fail on it."""
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError(f"the body is not readable JSON: {error}", hint="see /docs") from error


def _misfit(error: RequestValidationError) -> SchemaError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")[:200]
    what = f"{where or 'the body'}: {first['msg']}"
    return SchemaError(what.encode(errors="replace").decode(), hint="see /docs")
