"""The service as an ASGI application: one for each worker process."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from headwater.infra.clock import Clock, SystemClock
from headwater.infra.settings import Settings
from headwater.infra.tracing import begin_tracing
from headwater.serving.access.authentication import Access, Authentication
from headwater.serving.api.operations import (
    LABEL,
    METRICS,
    PIPELINES,
    PREDICT,
    PREDICTION,
    PredictionQuery,
)
from headwater.serving.api.problems import PROBLEM_TYPE, Problem
from headwater.serving.api.reply import json_response, refusal
from headwater.serving.http.batch_routes import batch_routes
from headwater.serving.http.documentation_routes import documentation_routes
from headwater.serving.http.fast_protocol import SHORT_WAY, ShortWay
from headwater.serving.http.fast_routes import FastRoutes, Pipelines, labels_route, named, predict_route
from headwater.serving.http.kserve_v2 import protocol_routes
from headwater.serving.http.label_queue_routes import LabelQueues, queue_routes
from headwater.serving.http.operator_routes import operator_routes
from headwater.serving.http.routes import route
from headwater.serving.metrics.counters import Cells, Counters
from headwater.serving.metrics.service_metrics import Metrics, told_now
from headwater.serving.published.alarms import KeeperStatus, cells_of
from headwater.serving.worker.batch_answers import BatchAnswers
from headwater.serving.worker.served_pipeline import ServedPipeline
from headwater.spec.data.records import Recorded
from headwater.spec.errors import HeadwaterError
from headwater.spec.pipeline import Pipeline

__all__ = ["MOST_BODY_BYTES", "create_app"]

MOST_BODY_BYTES = 2_000_000
"""How long a request may be."""

_FOLLOW_S = 0.1
_COLLECTED_TOGETHER = 10_000  # objects; at the usual 700 a twentieth of a request is collecting


def create_app(
    pipelines: Sequence[Pipeline],
    settings: Settings,
    clock: Clock | None = None,
    access: Access | None = None,
) -> ASGIApp:
    """Make the service.

    Parameters
    ----------
    pipelines
        What it serves.
    settings
        Where inboxes and live states are.
    clock
        The machine's where not given.
    access
        Who may ask; where not given, everybody until the first key is made.
    """
    clock = clock or SystemClock()
    served: dict[str, ServedPipeline] = {}
    batches: dict[str, BatchAnswers] = {}
    metrics = Metrics(Counters(settings))
    kind, tracing = _made_of(settings)

    queues = LabelQueues(served, settings, clock)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, ShortWay]]:
        for pipeline in pipelines:
            served[pipeline.name] = kind(pipeline, settings, clock, metrics.of(pipeline.name))
            if pipeline.batch is not None:
                batches[pipeline.name] = BatchAnswers(pipeline, pipeline.batch, settings, clock)
        await asyncio.gather(*(one.swap() for one in served.values()))
        await asyncio.gather(*(one.follow_tables() for one in served.values()))
        following = [asyncio.create_task(one.follow(_FOLLOW_S)) for one in served.values()]
        following += [asyncio.create_task(one.follow(_FOLLOW_S)) for one in batches.values()]
        following.append(asyncio.create_task(guard.follow(_FOLLOW_S)))
        gc.freeze()  # what is loaded by now stays; a collection that looks at it all stops every request
        often, *rarely = gc.get_threshold()
        gc.set_threshold(_COLLECTED_TOGETHER, *rarely)  # what waits for its sync is looked at in vain
        yield {} if tracing else {SHORT_WAY: ShortWay(guard, hot)}
        gc.set_threshold(often, *rarely)
        gc.unfreeze()
        for task in following:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*following)
        await asyncio.gather(*(one.close() for one in served.values()))
        for batch in batches.values():
            batch.close()
        queues.close()
        guard.close()
        metrics.close()

    hot = {
        PREDICT.path: predict_route(served, MOST_BODY_BYTES, metrics),
        LABEL.path: labels_route(served, MOST_BODY_BYTES, metrics),
    }
    app = Starlette(
        routes=[
            # Reached with another method only, to be told so.
            *(Route(path, one, methods=["POST"]) for path, one in hot.items()),
            *protocol_routes(served, MOST_BODY_BYTES),
            *batch_routes(served, batches, clock, metrics, MOST_BODY_BYTES),
            *_lookup_routes(served, batches, clock, metrics),
            *queue_routes(queues),
            *operator_routes(served, settings),
            *documentation_routes(pipelines),
        ],
        exception_handlers={HeadwaterError: _refused, HTTPException: _unrouted, Exception: _refused},
        lifespan=lifespan,
    )
    guard = Authentication(
        FastRoutes(app, hot, metrics), access or Access(), settings, clock, metrics.problem
    )
    return guard if tracing is None else tracing(guard)


def _made_of(settings: Settings) -> tuple[type[ServedPipeline], Callable[[ASGIApp], ASGIApp] | None]:
    """Give what the service is made of: the plain parts, untouched, or where asked the traced ones."""
    if not begin_tracing(settings, "headwater"):
        return ServedPipeline, None
    from headwater.serving.process.tracing import TracedPipeline, TracingMiddleware  # noqa: PLC0415 - only where asked for

    return TracedPipeline, TracingMiddleware


def _lookup_routes(
    served: Pipelines, batches: Mapping[str, BatchAnswers], clock: Clock, metrics: Metrics
) -> list[Route]:
    async def prediction(request: Request, query: PredictionQuery) -> Recorded:
        one = named(served, query.pipeline)
        return await asyncio.to_thread(one.find, request.path_params["prediction_id"][:300])

    async def statuses(_request: Request, _query: None) -> list[dict[str, Any]]:
        return [_status(one, clock.now()) for one in served.values()]

    async def totals(request: Request, _query: None) -> Response:
        for one in served.values():
            one.sample()
        cells = [cell for one in served.values() for cell in cells_of(one.pipeline.name, one.told())]
        cells += _batch_cells(batches)
        accept = request.headers.get("accept", "")
        content, kind = await asyncio.to_thread(metrics.text, accept, cells)
        return Response(content, headers={"content-type": kind})

    return [route(PREDICTION, prediction), route(PIPELINES, statuses), route(METRICS, totals)]


def _batch_cells(batches: Mapping[str, BatchAnswers]) -> Iterator[Cells]:
    for name, one in batches.items():
        standing = one.standing()
        if standing is not None:
            yield told_now("headwater_batch_predictions", name, standing.rows)
            yield told_now("headwater_batch_predictions_read", name, standing.read)
            yield told_now("headwater_batch_age_seconds", name, standing.age_s)


def _status(one: ServedPipeline, now: datetime) -> dict[str, Any]:
    champion, serving, told = one.champion, one.serving, one.told()
    return {
        "pipeline": one.pipeline.name,
        "task": one.pipeline.task,
        "version": None if champion is None else champion.version,
        "learned_to": None if champion is None else champion.learned_to,
        "epoch": None if serving is None else serving.epoch,
        "routing": None if serving is None else serving.routing,
        "shares": {} if one.answering is None else one.answering.plan.shares,
        "shadows": () if serving is None else serving.shadows,
        "waiting": one.waiting,
        "swap_failure": one.swap_failure,
        "tables": () if one.tables is None else one.tables.status(now),
        "learning": _learning(told),
        "alarms": told.alarms,
    }


def _learning(told: KeeperStatus) -> dict[str, Any] | None:
    """Say how learning each label stands; None where the flows learn."""
    if not told.learns:
        return None
    return {
        "learned_to": told.learned_to,
        "sequenced_to": told.sequenced_to,
        "paused": told.pause is not None,
        "pause": told.pause,
    }


async def _refused(_request: Request, error: Exception) -> Response:
    return refusal(error)


async def _unrouted(request: Request, error: Exception) -> Response:
    """Answer a path that is not there, or a method that it does not take, with those that it does."""
    if not isinstance(error, HTTPException):
        return refusal(error)
    problem = Problem(status=error.status_code, title=error.detail, hint="see /docs")
    answer = json_response(problem, problem.status, PROBLEM_TYPE.decode())
    if problem.status == 405:
        routes = [one for one in request.app.router.routes if isinstance(one, Route)]
        there = [one for one in routes if one.matches(request.scope)[0] is not Match.NONE]
        answer.headers["allow"] = ", ".join(sorted({m for one in there for m in one.methods or ()}))
    return answer
