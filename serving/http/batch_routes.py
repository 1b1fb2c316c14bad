"""Batch answers over HTTP: look a key up, or let the online model answer where it has none."""

import asyncio
from collections.abc import Mapping
from datetime import datetime

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.infra.clock import Clock
from headwater.serving.api.operations import BATCH_ANSWER, BATCH_PREDICT
from headwater.serving.api.problems import PROBLEM_TYPE, Problem
from headwater.serving.api.reply import json_response
from headwater.serving.api.schemas import BatchAnswer, BatchItem, PredictionAnswer, PredictItem
from headwater.serving.http.fast_routes import BodyLimits, Pipelines, named
from headwater.serving.http.routes import route
from headwater.serving.metrics.service_metrics import Metrics
from headwater.serving.worker.batch_answers import BatchAnswers
from headwater.serving.worker.served_pipeline import ServedPipeline
from headwater.spec.errors import NotFoundError, SchemaError
from headwater.spec.serving.batch import LONGEST_KEY

__all__ = ["batch_routes"]


def batch_routes(
    served: Pipelines,
    answers: Mapping[str, BatchAnswers],
    clock: Clock,
    metrics: Metrics,
    limits: BodyLimits,
) -> list[Route]:
    """Make the routes below ``/batch``.

    Parameters
    ----------
    served, answers
        By name, once the service has started; a pipeline that scores no table has no answers.
    clock, metrics
        The time, and what counts.
    limits
        Bounds of a body.
    """

    def asked(request: Request) -> tuple[ServedPipeline, BatchAnswers, str]:
        one = named(served, request.path_params["pipeline"])
        name, key = one.pipeline.name, request.path_params["key"]
        if name not in answers:
            raise NotFoundError(
                f"pipeline {name!r} scores no table", hint="declare batch=BatchPrediction(...) on it"
            )
        return one, answers[name], key

    async def look_up(request: Request, _query: None) -> BatchAnswer:
        one, its, key = asked(request)
        found = await asyncio.to_thread(its.find, key)
        metrics.looked_up(one.pipeline.name, "none" if found is None else found.found)
        if found is None:
            raise its.missing(key)
        return found

    async def look_up_or_predict(request: Request, item: BatchItem) -> BatchAnswer | Response:
        one, its, key = asked(request)
        if not its.batch.fall_through:
            return _only_looked_up()
        if not 0 < len(key) <= LONGEST_KEY:
            raise SchemaError(
                f"key: it has {len(key)} characters",
                hint=f"send a key of 1 to {LONGEST_KEY} characters",
            )
        wanted = PredictItem(item.features, item.id, {its.batch.key: key}, item.unit)
        one.check(wanted)
        again = item.id is not UNSET and await asyncio.to_thread(one.recorder.find, item.id) is not None
        found = None if again else await asyncio.to_thread(its.find, key)
        if found is None:
            (answer,) = await one.predict([wanted])
            found = _online(key, answer, clock.now())
        metrics.looked_up(one.pipeline.name, found.found)
        return found

    return [
        route(BATCH_ANSWER, look_up),
        route(BATCH_PREDICT, look_up_or_predict, limits=limits),
    ]


def _only_looked_up() -> Response:
    problem = Problem(status=405, title="Method Not Allowed", hint="the pipeline does not fall through")
    answer = json_response(problem, problem.status, PROBLEM_TYPE.decode())
    answer.headers["allow"] = "GET, HEAD"
    return answer


def _online(key: str, answer: PredictionAnswer, now: datetime) -> BatchAnswer:
    """Return the online model's prediction as the answer for a key."""
    return BatchAnswer(
        key=key,
        found="online",
        id=answer.id,
        output=answer.output,
        version=answer.version,
        role=answer.role,
        predicted_at=now,
        age_s=0.0,
        probabilities=answer.probabilities,
        loss_window_ms=answer.loss_window_ms,
    )
