"""Batch answers over HTTP: look a key up, or let the online model answer if it has no batch answer."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from msgspec import UNSET
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headwater.features.record.checks import plain_words
from headwater.infra.clock import Clock
from headwater.serving.api.schemas import BatchAnswer, BatchItem, PredictItem
from headwater.serving.http.fast_routes import BodyLimits, Pipelines, named, read_body
from headwater.serving.metrics.service_metrics import Metrics
from headwater.serving.worker.batch_answers import BatchAnswers
from headwater.spec.errors import NotFoundError, SchemaError
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.batch import LONGEST_KEY

__all__ = ["batch_routes"]


class _KeyConvertor(Convertor[str]):
    """Match any key in a path, with slashes and line breaks too."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        """Return the key as the path holds it."""
        return value

    def to_string(self, value: str) -> str:
        """Return the part of a path that holds a key."""
        return value


register_url_convertor("batch_key", _KeyConvertor())
_ITEM = msgspec.json.Decoder(BatchItem)
_Endpoint = Callable[[Request], Awaitable[Response]]


def batch_routes(
    pipelines: Sequence[Pipeline],
    served: Pipelines,
    answers: Mapping[str, BatchAnswers],
    clock: Clock,
    metrics: Metrics,
    limits: BodyLimits,
) -> list[BaseRoute]:
    """Make the routes below ``/batch``.

    Parameters
    ----------
    pipelines
        The declared pipelines: a pipeline without a batch has no route, and a pipeline that does not
        fall through takes no POST.
    served, answers
        Served pipelines and batch answers by name, filled once the service has started.
    clock, metrics
        The time, and the counters.
    limits
        Bounds of a body.
    """
    routes: list[BaseRoute] = []
    for pipeline in pipelines:
        if pipeline.batch is not None:
            endpoint = _batch_endpoint(pipeline.name, served, answers, clock, metrics, limits)
            methods = ["GET", "POST"] if pipeline.batch.fall_through else ["GET"]
            routes.append(Route(f"/batch/{pipeline.name}/{{key:batch_key}}", endpoint, methods=methods))
    return [
        *routes,
        Route("/batch/{pipeline}/{key:batch_key}", _missing_endpoint(served), methods=["GET"]),
    ]


def _batch_endpoint(
    name: str,
    served: Pipelines,
    answers: Mapping[str, BatchAnswers],
    clock: Clock,
    metrics: Metrics,
    limits: BodyLimits,
) -> _Endpoint:
    async def look_up(key: str) -> BatchAnswer:
        answer = await asyncio.to_thread(answers[name].find, key)
        if answer is None:
            metrics.looked_up(name, "none")
            raise answers[name].missing(key)
        return answer

    async def look_up_or_predict(key: str, body: bytes) -> BatchAnswer:
        item = _decoded(key, body)
        pipeline, batch_answers = served[name], answers[name]
        request = PredictItem(item.features, item.id, {batch_answers.batch.key: key}, item.unit)
        pipeline.check(request)
        repeated = (
            item.id is not UNSET and await asyncio.to_thread(pipeline.recorder.find, item.id) is not None
        )
        batch_answer = None if repeated else await asyncio.to_thread(batch_answers.find, key)
        if batch_answer is not None:
            return batch_answer
        (answer,) = await pipeline.predict([request])
        return BatchAnswer(
            key=key,
            found="online",
            id=answer.id,
            output=answer.output,
            version=answer.version,
            role=answer.role,
            predicted_at=clock.now(),
            age_s=0.0,
            probabilities=answer.probabilities,
            loss_window_ms=answer.loss_window_ms,
        )

    async def endpoint(request: Request) -> Response:
        key: str = request.path_params["key"]
        if request.method == "POST":
            body = await read_body(request.scope, request.receive, limits)
            answer = await look_up_or_predict(key, body)
        else:
            answer = await look_up(key)
        metrics.looked_up(name, answer.found)
        return Response(msgspec.json.encode(answer), media_type="application/json")

    return endpoint


def _missing_endpoint(served: Pipelines) -> _Endpoint:
    async def endpoint(request: Request) -> Response:
        name = named(served, request.path_params["pipeline"]).pipeline.name
        raise NotFoundError(
            f"pipeline {name!r} scores no table", hint="declare batch=BatchPrediction(...) on it"
        )

    return endpoint


def _decoded(key: str, body: bytes) -> BatchItem:
    if not 0 < len(key) <= LONGEST_KEY:
        raise SchemaError(
            f"key: it has {len(key)} characters", hint=f"send a key of 1 to {LONGEST_KEY} characters"
        )
    try:
        return _ITEM.decode(body)
    except msgspec.ValidationError as error:
        raise SchemaError(plain_words(error), hint="see /docs") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaError(f"the body is not JSON: {error}", hint="see /docs") from error
