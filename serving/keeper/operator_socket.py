"""The keeper's socket for operators: HTTP over a Unix socket, with the operations' own paths."""

import asyncio
import logging
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.infra.clock import Clock
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.published_file import replacing
from headwater.loop.operator.operations import Operator
from headwater.serving.api.keeper_socket import BY_HEADER, socket_file
from headwater.serving.api.operation import Operation
from headwater.serving.api.operations import OPERATIONS
from headwater.serving.api.reply import json_response, refusal
from headwater.spec.errors import DeclarationError, HeadwaterError, NotFoundError, SchemaError
from headwater.spec.pipeline import Pipeline

__all__ = ["OperatorSocket"]

_WAITING = 100
_Call = Callable[[Operator, Any, str], object]
_logger = logging.getLogger("headwater.operating")


class OperatorSocket:
    """Execute operators' requests in order, in a thread of the keeper's process.

    It has its own thread, since the keeper may be busy learning. It listens at a socket that only the
    keeper's user can reach. It is used in a ``with`` block.

    Parameters
    ----------
    pipelines
        The pipelines that may be operated.
    settings
        The addresses of the stores.
    clock
        The time; the machine's clock if not given.
    """

    def __init__(
        self, pipelines: Sequence[Pipeline], settings: Settings, clock: Clock | None = None
    ) -> None:
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}
        self._settings = settings
        self._clock = clock
        self._database = Database(settings.operational_url)
        self._operators: dict[str, Operator] = {}
        self._one_at_a_time = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="headwater-")  # of mode 0700
        self._path = str(Path(self._folder.name) / "operations")
        self._file = socket_file(settings)
        self._socket = socket.socket(socket.AF_UNIX)
        routes = [self._route(row, row.call) for row in OPERATIONS if row.call is not None]
        app = Starlette(
            routes=routes, exception_handlers={HeadwaterError: _refused, Exception: _refused}
        )
        self._server = uvicorn.Server(
            uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False)
        )
        self._thread = threading.Thread(
            target=self._server.run, name="operating", kwargs={"sockets": [self._socket]}
        )

    def __enter__(self) -> Self:
        self._socket.bind(self._path)
        self._socket.listen(_WAITING)  # a request that comes before the thread waits for it
        self._thread.start()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._file) as draft:
            draft.write_text(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            if self._file.read_text() == self._path:
                self._file.unlink()
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        self._folder.cleanup()
        self._database.close()

    def _route(self, operation: Operation[Any, Any], call: _Call) -> Route:
        async def endpoint(request: Request) -> Response:
            body = operation.decode(await request.body(), request.query_params)
            name, by = request.path_params["pipeline"], unquote(request.headers.get(BY_HEADER, ""))
            return json_response(await asyncio.to_thread(self._execute, call, name, body, by))

        return Route(operation.path, endpoint, methods=[operation.method])

    def _execute(self, call: _Call, name: str, body: object, by: str) -> object:
        with self._one_at_a_time:
            try:
                return call(self._operator(name), body, by)
            except DeclarationError as error:
                raise SchemaError(error.what, error.hint) from error

    def _operator(self, name: str) -> Operator:
        if name not in self._pipelines:
            raise NotFoundError(f"the keeper has no pipeline {name!r}")
        if name not in self._operators:
            self._operators[name] = Operator(
                self._pipelines[name], self._settings, self._database, self._clock
            )
        return self._operators[name]


async def _refused(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HeadwaterError):
        _logger.error("an operation failed", exc_info=error)
    return refusal(error)
