"""The ASGI application of the service; each worker process makes one."""

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
    PIPELINE,
    PIPELINES,
    PREDICT,
    PREDICTION,
)
from headwater.serving.api.problems import PROBLEM_TYPE, Problem
from headwater.serving.api.reply import json_response, refusal
from headwater.serving.api.schemas import PredictionQuery
from headwater.serving.http.batch_routes import batch_routes
from headwater.serving.http.documentation_routes import documentation_routes
from headwater.serving.http.fast_protocol import SHORT_WAY, ShortWay
from headwater.serving.http.fast_routes import (
    BODY_LIMITS,
    BodyLimits,
    FastRoutes,
    Pipelines,
    labels_route,
    named,
    predict_route,
)
from headwater.serving.http.kserve_v2 import protocol_routes
from headwater.serving.http.label_queue_routes import LabelQueues, queue_routes
from headwater.serving.http.operator_routes import operator_routes
from headwater.serving.http.routes import route
from headwater.serving.http.strict_protocol import CONNECTION_BOUNDS, REFUSED, ConnectionBounds
from headwater.serving.metrics.counters import Cells, Counters
from headwater.serving.metrics.service_metrics import Metrics, gauge_now
from headwater.serving.published.alarms import KeeperStatus, cells_of
from headwater.serving.worker.batch_answers import BatchAnswers
from headwater.serving.worker.records import find_record
from headwater.serving.worker.served_pipeline import ServedPipeline
from headwater.spec.answering import feature_types
from headwater.spec.data.records import Recorded
from headwater.spec.errors import HeadwaterError
from headwater.spec.pipeline import Pipeline

__all__ = ["create_app"]

_FOLLOW_S, _LOAD_S = 0.1, 10.0
_FOLLOW_EACH_S = 0.0025  # for many pipelines: four hundred looks a second
_COLLECTED_TOGETHER = 10_000  # objects; at the usual 700 a twentieth of a request is collecting


def create_app(
    pipelines: Sequence[Pipeline],
    settings: Settings,
    clock: Clock | None = None,
    access: Access | None = None,
    limits: BodyLimits = BODY_LIMITS,
    patience_s: float = 1.0,
    bounds: ConnectionBounds | None = None,
) -> ASGIApp:
    """Make the application of a worker.

    Parameters
    ----------
    pipelines
        The pipelines to serve.
    settings
        The addresses of inboxes and published states.
    clock
        The time; the machine's clock if not given.
    access
        Whether requests need a key, and their rate; if not given, keys are needed once the first is
        made.
    limits
        Bounds of the body of a request.
    patience_s
        How many seconds the rest of a hot request may take before it passes the framework.
    bounds
        Bounds of connections; the usual ones if not given.
    """
    clock = clock or SystemClock()
    served: dict[str, ServedPipeline] = {}
    batches: dict[str, BatchAnswers] = {}
    metrics = Metrics(Counters(settings))
    kind, tracing = _parts_of(settings)

    queues = LabelQueues(served, settings, clock)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, object]]:
        for pipeline in pipelines:
            served[pipeline.name] = kind(pipeline, settings, clock, metrics.of(pipeline.name))
            if pipeline.batch is not None:
                batches[pipeline.name] = BatchAnswers(pipeline, pipeline.batch, settings, clock)
        loading = [asyncio.create_task(one.reload()) for one in served.values()]
        # A slow one must not hold up the others.
        loaded, _ = await asyncio.wait(loading, timeout=_LOAD_S)
        for task in loaded:
            task.result()
        every_s = max(_FOLLOW_S, _FOLLOW_EACH_S * len(served))
        following = [
            asyncio.create_task(one.follow(every_s, after))
            for one, after in zip(served.values(), loading, strict=True)
        ]
        following += [asyncio.create_task(one.follow(_FOLLOW_S)) for one in batches.values()]
        following.append(asyncio.create_task(guard.follow(_FOLLOW_S)))
        gc.freeze()  # objects loaded by now stay; a collection that visits them all stops every request
        often, *rarely = gc.get_threshold()
        gc.set_threshold(
            _COLLECTED_TOGETHER, *rarely
        )  # records that wait for their sync cannot be collected
        short_way = None if tracing else ShortWay(guard, hot, patience_s)
        yield {SHORT_WAY: short_way, CONNECTION_BOUNDS: bounds, REFUSED: metrics.problem}
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
        PREDICT.path: predict_route(served, limits, metrics),
        LABEL.path: labels_route(served, limits, metrics),
    }
    app = Starlette(
        routes=[
            # These match other methods only, which they answer with 405.
            *(Route(path, one, methods=["POST"]) for path, one in hot.items()),
            *protocol_routes(served, limits),
            *batch_routes(served, batches, clock, metrics, limits),
            *_lookup_routes(served, batches, clock, metrics),
            *queue_routes(queues),
            *operator_routes(served, settings),
            *documentation_routes(pipelines),
        ],
        exception_handlers={
            HeadwaterError: _answer_error,
            HTTPException: _answer_http_error,
            Exception: _answer_error,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a path of another form is another path
    guard = Authentication(
        FastRoutes(app, hot, metrics), access or Access(), settings, clock, metrics.problem
    )
    return guard if tracing is None else tracing(guard)


def _parts_of(settings: Settings) -> tuple[type[ServedPipeline], Callable[[ASGIApp], ASGIApp] | None]:
    """Return the class that serves, and the tracing wrapper if the settings ask for traces."""
    if not begin_tracing(settings, "headwater"):
        return ServedPipeline, None
    from headwater.serving.process.tracing import TracedPipeline, TracingMiddleware  # noqa: PLC0415 - only where asked for

    return TracedPipeline, TracingMiddleware


def _lookup_routes(
    served: Pipelines, batches: Mapping[str, BatchAnswers], clock: Clock, metrics: Metrics
) -> list[Route]:
    async def prediction(request: Request, query: PredictionQuery) -> Recorded:
        recorder, id_ = named(served, query.pipeline).recorder, request.path_params["prediction_id"]
        return await asyncio.to_thread(find_record, recorder, id_[:300])

    async def statuses(_request: Request, _query: None) -> list[dict[str, Any]]:
        return [_status(one, clock.now()) for one in served.values()]

    async def status(request: Request, _query: None) -> dict[str, Any]:
        return _status(named(served, request.path_params["pipeline"]), clock.now())

    async def totals(request: Request, _query: None) -> Response:
        for one in served.values():
            one.sample()
        cells = [
            cell for one in served.values() for cell in cells_of(one.pipeline.name, one.keeper_status())
        ]
        cells += _batch_cells(batches)
        accept = request.headers.get("accept", "")
        content, kind = await asyncio.to_thread(metrics.text, accept, cells)
        return Response(content, headers={"content-type": kind})

    return [
        route(PREDICTION, prediction),
        route(PIPELINES, statuses),
        route(PIPELINE, status),
        route(METRICS, totals),
    ]


def _batch_cells(batches: Mapping[str, BatchAnswers]) -> Iterator[Cells]:
    for name, answers in batches.items():
        status = answers.status()
        if status is not None:
            yield gauge_now("headwater_batch_predictions", name, status.rows)
            yield gauge_now("headwater_batch_predictions_read", name, status.read)
            yield gauge_now("headwater_batch_age_seconds", name, status.age_s)


def _status(one: ServedPipeline, now: datetime) -> dict[str, Any]:
    champion, serving, keeper, pair = one.champion, one.serving, one.keeper_status(), one.predictor.pair
    return {
        "pipeline": one.pipeline.name,
        "task": one.pipeline.task,
        "version": None if champion is None else champion.version,
        "learned_to": None if champion is None else champion.learned_to,
        "declared": {"features": feature_types(one.pipeline.features)},
        "serves": None if pair.pairing is None else pair.pairing.shown(),
        "epoch": None if serving is None else serving.epoch,
        "routing": None if serving is None else serving.routing,
        "shares": {} if one.active is None else one.active.plan.shares,
        "shadows": () if serving is None else serving.shadows,
        "waiting": one.waiting,
        "swap_failure": one.swap_failure,
        "isolated": one.isolated(),
        "tables": () if pair.tables is None else pair.tables.status(now),
        "learning": _learning(keeper),
        "alarms": keeper.alarms,
    }


def _learning(keeper: KeeperStatus) -> dict[str, Any] | None:
    """Return the state of online learning; None if flows learn."""
    if not keeper.learns:
        return None
    return {
        "learned_to": keeper.learned_to,
        "sequenced_to": keeper.sequenced_to,
        "paused": keeper.pause is not None,
        "pause": keeper.pause,
    }


async def _answer_error(_request: Request, error: Exception) -> Response:
    return refusal(error)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """Answer an unknown path, or a method that a path does not take; name the methods that it takes."""
    if not isinstance(error, HTTPException):
        return refusal(error)
    problem = Problem(status=error.status_code, title=error.detail, hint="see /docs")
    answer = json_response(problem, problem.status, PROBLEM_TYPE.decode())
    if problem.status == 405:
        routes = [route for route in request.app.router.routes if isinstance(route, Route)]
        matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
        answer.headers["allow"] = ", ".join(
            sorted({m for route in matching for m in route.methods or ()})
        )
    return answer
