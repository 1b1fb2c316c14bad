"""Batch answers over HTTP: look a key up, or let the online model answer if it has no batch answer."""

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
        Served pipelines and batch answers by name, filled once the service has started.
    clock, metrics
        The time, and the counters.
    limits
        Bounds of a body.
    """

    def target_of(request: Request) -> tuple[ServedPipeline, BatchAnswers, str]:
        pipeline = named(served, request.path_params["pipeline"])
        name, key = pipeline.pipeline.name, request.path_params["key"]
        if name not in answers:
            raise NotFoundError(
                f"pipeline {name!r} scores no table", hint="declare batch=BatchPrediction(...) on it"
            )
        return pipeline, answers[name], key

    async def look_up(request: Request, _query: None) -> BatchAnswer:
        pipeline, batch_answers, key = target_of(request)
        batch_answer = await asyncio.to_thread(batch_answers.find, key)
        metrics.looked_up(pipeline.pipeline.name, "none" if batch_answer is None else batch_answer.found)
        if batch_answer is None:
            raise batch_answers.missing(key)
        return batch_answer

    async def look_up_or_predict(request: Request, item: BatchItem) -> BatchAnswer | Response:
        pipeline, batch_answers, key = target_of(request)
        if not batch_answers.batch.fall_through:
            return _only_looked_up()
        if not 0 < len(key) <= LONGEST_KEY:
            raise SchemaError(
                f"key: it has {len(key)} characters",
                hint=f"send a key of 1 to {LONGEST_KEY} characters",
            )
        prediction_request = PredictItem(
            item.features, item.id, {batch_answers.batch.key: key}, item.unit, item.due_at
        )
        pipeline.predictor.check(prediction_request)
        repeated = (
            item.id is not UNSET and await asyncio.to_thread(pipeline.recorder.find, item.id) is not None
        )
        batch_answer = None if repeated else await asyncio.to_thread(batch_answers.find, key)
        if batch_answer is None:
            (answer,) = await pipeline.predictor.predict([prediction_request])
            batch_answer = _online(key, answer, clock.now())
        metrics.looked_up(pipeline.pipeline.name, batch_answer.found)
        return batch_answer

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
