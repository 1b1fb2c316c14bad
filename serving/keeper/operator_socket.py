"""The keeper's socket for operators: execute requests that need MLflow, which no worker imports."""

import logging
import socketserver
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from headwater.features.record.checks import plain_words
from headwater.infra.clock import Clock
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.loop.operator.operations import Operator
from headwater.serving.api.operations import (
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
from headwater.spec.errors import DeclarationError, HeadwaterError, NotFoundError, SchemaError
from headwater.spec.pipeline import Pipeline

__all__ = ["OPERATIONS", "OperatorSocket"]

_IDLE_S = 10.0
_MOST_BYTES = 200_000
_logger = logging.getLogger("headwater.operating")


class _Operation(NamedTuple):
    """An operation: the type of its body, and a function of operator, body and the asker's name."""

    body: type[Any]
    do: Callable[[Operator, Any, str], object]


def _champion(operator: Operator, body: ChampionBody, by: str) -> object:
    spans = [span.offsets for span in body.quarantine]
    if body.rollback:
        return operator.roll_back(body.version, by=by, reason=body.reason, quarantine=spans)
    if body.version is None:
        raise SchemaError("version: it is missing", hint="name a version, or roll back: rollback=true")
    if spans:
        raise SchemaError("quarantine: it goes with a rollback", hint="leave it out, or roll back")
    return operator.promote(body.version, by=by, reason=body.reason)


def _learning(operator: Operator, body: LearningBody, by: str) -> object:
    change = operator.pause if body.paused else operator.resume
    return change(by=by, reason=body.reason)


def _route(operator: Operator, body: RoutingBody, by: str) -> object:
    operator.route(body.routing, by=by, reason=body.reason, expected=body.expected)
    return operator.routed()


def _add_shadow(operator: Operator, body: ShadowBody, by: str) -> object:
    operator.add_shadow(body.version, by=by, reason=body.reason)
    return operator.routed()


def _drop_shadow(operator: Operator, body: ShadowBody, by: str) -> object:
    operator.drop_shadow(body.version, by=by, reason=body.reason)
    return operator.routed()


def _quarantine(operator: Operator, body: QuarantineBody, by: str) -> object:
    spans = [span.offsets for span in body.spans]
    return operator.quarantine(spans, by=by, reason=body.reason)


OPERATIONS: Mapping[str, _Operation] = {
    "routing": _Operation(dict, lambda operator, _body, _by: operator.routed()),
    "route": _Operation(RoutingBody, _route),
    "add shadow": _Operation(ShadowBody, _add_shadow),
    "drop shadow": _Operation(ShadowBody, _drop_shadow),
    "learning": _Operation(dict, lambda operator, _body, _by: operator.learning()),
    "learn": _Operation(LearningBody, _learning),
    "quarantine": _Operation(QuarantineBody, _quarantine),
    "champion": _Operation(ChampionBody, _champion),
    "versions": _Operation(VersionsBody, lambda operator, body, _by: operator.versions(body.last)),
}
"""The operations that a request may ask for, by name."""


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
        self._folder = tempfile.TemporaryDirectory(prefix="headwater-")  # of mode 0700
        path = Path(self._folder.name) / "operations"
        self._server = _Server(str(path), self.answer)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="operating", kwargs={"poll_interval": 0.2}
        )
        self._file = socket_file(settings)
        self._path = str(path)

    def __enter__(self) -> Self:
        self._thread.start()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".new")
        draft.write_text(self._path)
        draft.replace(self._file)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            if self._file.read_text() == self._path:
                self._file.unlink()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._folder.cleanup()
        self._database.close()

    def answer(self, line: bytes) -> bytes:
        """Execute the request in a line; return the line that answers it."""
        try:
            reply = OperatorReply(result=msgspec.Raw(msgspec.json.encode(self._execute(line))))
        except HeadwaterError as error:
            reply = OperatorReply(code=type(error).__name__, error=error.what, hint=error.hint)
        except Exception:
            _logger.exception("an operation failed")
            reply = OperatorReply(
                code="HeadwaterError", error="an unexpected error", hint="the keeper's log has it"
            )
        return msgspec.json.encode(reply) + b"\n"

    def _execute(self, line: bytes) -> object:
        request = msgspec.json.decode(line, type=OperatorRequest)
        operation = OPERATIONS[request.what]
        try:
            body = msgspec.json.decode(request.body, type=operation.body)
        except msgspec.ValidationError as error:
            raise SchemaError(plain_words(error), hint="see /docs") from error
        try:
            return operation.do(self._operator(request.pipeline), body, request.by)
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


class _Server(socketserver.UnixStreamServer):
    def __init__(self, path: str, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        super().__init__(path, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log that the caller hung up: nobody waits for the answer."""
        del request, client_address
        _logger.info("the caller of an operation went away", exc_info=True)


class _Handler(socketserver.StreamRequestHandler):
    timeout = _IDLE_S
    server: _Server

    def handle(self) -> None:
        line = self.rfile.readline(_MOST_BYTES)
        if line:
            self.wfile.write(self.server.answer(line))
