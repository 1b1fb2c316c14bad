"""The hot routes, predict and labels, with no framework between the socket and the pipeline."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater.features.record.checks import hint_of, plain_words
from headwater.serving.access.authentication import BY
from headwater.serving.api.problems import FAILED, PROBLEM_TYPE, Problem, log_problem, problem_of
from headwater.serving.api.reply import Headers, Reply
from headwater.serving.api.schemas import (
    NO_FEATURES,
    LabelItem,
    LabelRequest,
    LabelResults,
    PredictionAnswers,
    PredictItem,
    PredictRequest,
)
from headwater.serving.http.idempotency import idempotency_key
from headwater.serving.metrics.service_metrics import Metrics
from headwater.serving.worker.served_pipeline import ServedPipeline
from headwater.spec.errors import (
    HeadwaterError,
    NotFoundError,
    SchemaError,
    SlowError,
    TooLargeError,
    few,
)

__all__ = [
    "BODY_LIMITS",
    "BodyLimits",
    "FastRoute",
    "FastRoutes",
    "json_fault",
    "labels_route",
    "named",
    "predict_route",
    "read_body",
]

_JSON = b"application/json"
_logger = logging.getLogger("headwater.serving")
_Request = TypeVar("_Request", PredictRequest, LabelRequest)
_ENCODER = msgspec.json.Encoder()
_NO_JSON = re.compile(
    rb"""(?x)
        [:\[,] [ \t\r\n]{0,9} (?: -?Infinity | [-+]?(?i:nan|inf) ) \b
      | (?<! \\ ) \\u[dD][89abAB]\w\w (?! \\u[dD][c-fC-F]\w\w )
    """
)
"""A number that is none, or the first half of a character."""
_SHOWN_BYTES = 120
_PREDICT = msgspec.json.Decoder(PredictRequest)
_LABELS = msgspec.json.Decoder(LabelRequest)

Pipelines = Mapping[str, ServedPipeline]


class BodyLimits(NamedTuple):
    """Bounds of the body of a request.

    Parameters
    ----------
    most_bytes
        How long it may be.
    within_s
        Within how many seconds it must come, else the request is refused.
    """

    most_bytes: int = 2_000_000
    within_s: float = 10.0


BODY_LIMITS = BodyLimits()
"""The bounds that hold unless a route has its own."""


class FastRoute:
    """A POST route as a bare ASGI application: read a body, answer JSON or a problem.

    If the body is read already, :meth:`reply` answers it without ASGI.

    Parameters
    ----------
    work
        Turns a body, the name of its key and the headers into an answer; raises a
        :class:`HeadwaterError` for a problem.
    limits
        Bounds of the body.
    metrics
        Counts problems.
    """

    def __init__(
        self,
        work: Callable[[bytes, str, Headers], Awaitable[object]],
        limits: BodyLimits,
        metrics: Metrics,
    ) -> None:
        self._work = work
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body = await read_body(scope, receive, self._limits)
        except HeadwaterError as error:
            reply = self._problem(problem_of(error))
        else:
            reply = await self.reply(body, scope.get(BY, ""), scope["headers"])
        await reply.send(send)

    async def reply(self, body: bytes, by: str, headers: Headers) -> Reply:
        """Answer a body that was sent with the key of a name."""
        try:
            return Reply(200, _JSON, _ENCODER.encode(await self._work(body, by, headers)))
        except HeadwaterError as error:
            return self._problem(problem_of(error))
        except Exception:
            _logger.exception("a request failed")
            return self._problem(FAILED)

    def _problem(self, problem: Problem) -> Reply:
        self._metrics.problem(problem.status)
        headers = ((b"retry-after", b"1"),) if problem.status == 503 else ()
        return Reply(problem.status, PROBLEM_TYPE, _ENCODER.encode(problem), headers)


class FastRoutes:
    """The service with its hot routes in front, so that most requests pass no framework.

    Parameters
    ----------
    app
        Answers all other requests.
    hot
        A route for each path.
    metrics
        Counts problems of all other requests.
    """

    def __init__(self, app: ASGIApp, hot: Mapping[str, FastRoute], metrics: Metrics) -> None:
        self._app = app
        self._hot = hot
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the start and end of the service."""
        if scope["type"] == "http":
            route = self._hot.get(scope["path"])
            if route is not None and scope["method"] == "POST":
                await route(scope, receive, send)
                return
            send = self._counting(send)
        await self._app(scope, receive, send)

    def _counting(self, send: Send) -> Send:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                self._metrics.problem(message["status"])
            await send(message)

        return counting


def predict_route(pipelines: Pipelines, limits: BodyLimits, metrics: Metrics) -> FastRoute:
    """Make ``POST /predict``."""

    async def predict(body: bytes, _by: str, headers: Headers) -> object:
        request = _decoded(_PREDICT, body)
        try:
            return await answer(request, idempotency_key(headers))
        except HeadwaterError as error:
            log_problem(error, pipeline=request.pipeline, prediction_id=request.id)
            raise

    async def answer(request: PredictRequest, key: str | None) -> object:
        pipeline = named(pipelines, request.pipeline)
        if request.predictions is not UNSET:
            _check_alone(request.features is UNSET and request.id is UNSET, "predictions", "features")
            if key is not None:
                _identify(request.predictions, key)
            return PredictionAnswers(await pipeline.predictor.predict(request.predictions))
        features = request.features
        if features is UNSET:
            if pipeline.predictor.pair.pipeline.request_features:
                raise SchemaError(
                    "features: it is missing", hint="send features, or many in predictions"
                )
            features = NO_FEATURES
        id_ = key if request.id is UNSET and key is not None else request.id
        item = PredictItem(features, id_, request.entity, request.unit, request.due_at)
        (prediction,) = await pipeline.predictor.predict([item])
        return prediction

    return FastRoute(predict, limits, metrics)


def _identify(items: Sequence[PredictItem], key: str) -> None:
    """Give each request without an id one of the key and its place, as labels get keys."""
    for place, item in enumerate(items):
        if item.id is UNSET:
            item.id = f"{key}/{place}"


def labels_route(pipelines: Pipelines, limits: BodyLimits, metrics: Metrics) -> FastRoute:
    """Make ``POST /labels``."""

    async def label(body: bytes, by: str, headers: Headers) -> object:
        request = _decoded(_LABELS, body)
        try:
            return await record(request, by, idempotency_key(headers))
        except HeadwaterError as error:
            log_problem(error, pipeline=request.pipeline, prediction_id=request.prediction_id)
            raise

    async def record(request: LabelRequest, by: str, key: str | None) -> object:
        pipeline = named(pipelines, request.pipeline)
        if request.labels is not UNSET:
            alone = request.prediction_id is UNSET and request.value is UNSET
            _check_alone(alone, "labels", "prediction_id")
            return LabelResults(await pipeline.labels.record(request.labels, by, key))
        if request.prediction_id is UNSET or request.value is UNSET:
            missing = "prediction_id" if request.prediction_id is UNSET else "value"
            raise SchemaError(
                f"{missing}: it is missing", hint="send prediction_id and value, or many in labels"
            )
        own_key = UNSET if key is None else key
        item = LabelItem(
            request.prediction_id,
            request.value,
            request.known_at,
            request.source,
            own_key if request.key is UNSET else request.key,
        )
        return await pipeline.labels.record_one(item, by=by)

    return FastRoute(label, limits, metrics)


def named(pipelines: Pipelines, name: str | UnsetType) -> ServedPipeline:
    """Return the pipeline of a name, or the only pipeline.

    Raises
    ------
    NotFoundError
        If no pipeline has that name.
    SchemaError
        If no name is given and there are several pipelines.
    """
    if name is UNSET:
        if len(pipelines) == 1:
            return next(iter(pipelines.values()))
        raise SchemaError("pipeline: it is missing", hint=f"send one of {few(pipelines)}")
    pipeline = pipelines.get(name)
    if pipeline is None:
        raise NotFoundError(
            f"no pipeline {name[:100]!r} is served", hint=f"send one of {few(pipelines)}"
        )
    return pipeline


async def read_body(scope: Scope, receive: Receive, limits: BodyLimits) -> bytes:
    """Read the body of a request within limits.

    Raises
    ------
    TooLargeError
        If it is too long.
    SlowError
        If it does not come in time, or its sender goes away.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limits.most_bytes:
            raise _too_large(limits.most_bytes)
    try:
        async with asyncio.timeout(limits.within_s):
            return await _parts(receive, limits.most_bytes)
    except TimeoutError as error:
        raise SlowError(
            f"the body did not come within {limits.within_s:g} seconds", hint="send it at once"
        ) from error


async def _parts(receive: Receive, most_bytes: int) -> bytes:
    parts: list[bytes] = []
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise SlowError("the sender went away", hint="send the request again")
        more = message.get("more_body", False)
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > most_bytes:
            raise _too_large(most_bytes)
    return b"".join(parts)


def _too_large(most_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"the body is longer than {most_bytes:,} bytes", hint="send fewer items in each request"
    )


def _decoded(decoder: "msgspec.json.Decoder[_Request]", body: bytes) -> _Request:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise SchemaError(plain_words(error), hint=hint_of(error, "see /docs")) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError(
            f"the body is not JSON: {error}{json_fault(body)}", hint="see /docs"
        ) from error


def json_fault(body: bytes) -> str:
    r"""Return the words that name what no JSON holds, where a body has some; empty if it has none.

    Clients write NaN and infinity as their language does, and cut text within a character.

    >>> json_fault(b'{"value": NaN}'), json_fault(b'["NaN"]')
    (', at `{"value": NaN`', '')
    """
    found = _NO_JSON.search(body)
    if found is None:
        return ""
    shown = body[max(0, found.start() - _SHOWN_BYTES) : found.end()]
    return f", at `{shown.decode(errors='replace')}`"


def _check_alone(alone: bool, many: str, one: str) -> None:
    if not alone:
        raise SchemaError(f"both {many} and {one} are given", hint=f"send {one}, or many in {many}")
