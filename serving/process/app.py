"""The service as an ASGI application: one for each worker process."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import msgspec
from fastapi import FastAPI, Header, Query, Request
from fastapi.responses import PlainTextResponse, Response
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from headwater.infra.clock import Clock, SystemClock
from headwater.infra.settings import Settings
from headwater.infra.tracing import begin_tracing
from headwater.serving.access.authentication import Access, Authentication
from headwater.serving.api.problems import FAILED, PROBLEM_TYPE, Problem, problem_of
from headwater.serving.http.batch_routes import batch_routes
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
from headwater.serving.http.label_queue_routes import queue_router
from headwater.serving.http.openapi import describe
from headwater.serving.http.operator_routes import operations_router
from headwater.serving.metrics.counters import Cells, Counters
from headwater.serving.metrics.service_metrics import Metrics, told_now
from headwater.serving.published.alarms import KeeperStatus, cells_of
from headwater.serving.worker.batch_answers import BatchAnswers
from headwater.serving.worker.served_pipeline import ServedPipeline
from headwater.spec.errors import HeadwaterError
from headwater.spec.pipeline import Pipeline

__all__ = ["create_app"]

_FOLLOW_S = 0.1
_COLLECTED_TOGETHER = 10_000  # objects; at the usual 700 a twentieth of a request is collecting

# FastAPI's own spans and logs may quote what was sent.
_OWN_TRACES: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}


def create_app(
    pipelines: Sequence[Pipeline],
    settings: Settings,
    clock: Clock | None = None,
    access: Access | None = None,
    limits: BodyLimits = BODY_LIMITS,
    patience_s: float = 1.0,
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
    limits
        Bounds of the body of a request.
    patience_s
        How many seconds the rest of a hot request may take before it passes the framework.
    """
    clock = clock or SystemClock()
    served: dict[str, ServedPipeline] = {}
    batches: dict[str, BatchAnswers] = {}
    metrics = Metrics(Counters(settings))
    kind, tracing = _made_of(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, ShortWay]]:
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
        yield {} if tracing else {SHORT_WAY: ShortWay(guard, hot, patience_s)}
        gc.set_threshold(often, *rarely)
        gc.unfreeze()
        for task in following:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*following)
        await asyncio.gather(*(one.close() for one in served.values()))
        for batch in batches.values():
            batch.close()
        guard.close()
        metrics.close()

    # Its page of documentation comes from here, not from a content network: machines may be offline.
    app = FastAPIOffline(
        "/docs",
        None,
        title="headwater",
        version="1",
        summary="Predict, label, learn.",
        lifespan=lifespan,
        telemetry=_OWN_TRACES,
    )
    hot = {
        "/predict": predict_route(served, limits, metrics),
        "/labels": labels_route(served, limits, metrics),
    }
    app.router.routes[:0] = [
        # Reached with another method only, to be told so.
        *(Route(path, route, methods=["POST"]) for path, route in hot.items()),
        *protocol_routes(served, limits),
        *batch_routes(pipelines, served, batches, clock, metrics, limits),
    ]
    app.add_exception_handler(HeadwaterError, _refused)
    app.add_exception_handler(HTTPException, _unrouted)
    app.add_exception_handler(Exception, _failed)
    _add_lookups(app, served, clock)
    app.include_router(queue_router(served, settings, clock))
    app.include_router(operations_router(served, settings))
    _add_metrics(app, served, batches, metrics)
    describe(app, pipelines)
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


def _add_lookups(app: FastAPI, served: Pipelines, clock: Clock) -> None:
    @app.get("/predictions/{prediction_id}", tags=["predictions"], response_class=Response)
    async def prediction(
        prediction_id: str, pipeline: str | None = Query(None, description="Its name")
    ) -> Response:
        """Give what was recorded of a prediction: features as served, answer, labels as they came."""
        found = named(served, msgspec.UNSET if pipeline is None else pipeline)
        return _json(await asyncio.to_thread(found.find, prediction_id[:300]))

    @app.get("/pipelines", tags=["pipelines"], response_class=Response)
    async def statuses() -> Response:
        """Say of each pipeline which version serves, since when, and what waits."""
        return _json([_status(one, clock.now()) for one in served.values()])


def _add_metrics(
    app: FastAPI, served: Pipelines, batches: Mapping[str, BatchAnswers], metrics: Metrics
) -> None:
    @app.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
    async def totals(accept: str = Header("", include_in_schema=False)) -> Response:
        """Give what all workers counted, for Prometheus."""
        for one in served.values():
            one.sample()
        told = [cell for one in served.values() for cell in cells_of(one.pipeline.name, one.told())]
        told += _batch_cells(batches)
        content, kind = await asyncio.to_thread(metrics.text, accept, told)
        return Response(content, headers={"content-type": kind})


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


def _json(found: object, status: int = 200, kind: str = "application/json") -> Response:
    return Response(msgspec.json.encode(found), status, media_type=kind)


def _refused(_request: Request, error: Exception) -> Response:
    problem = problem_of(error) if isinstance(error, HeadwaterError) else FAILED
    answer = _json(problem, problem.status, PROBLEM_TYPE.decode())
    if problem.status == 503:
        answer.headers["retry-after"] = "1"
    return answer


def _unrouted(request: Request, error: Exception) -> Response:
    """Answer a path that is not there, or a method that it does not take, with those that it does."""
    if not isinstance(error, HTTPException):
        return _failed(request, error)
    problem = Problem(status=error.status_code, title=error.detail, hint="see /docs")
    answer = _json(problem, problem.status, PROBLEM_TYPE.decode())
    if problem.status == 405:
        routes = [one for one in request.app.router.routes if isinstance(one, Route)]
        there = [one for one in routes if one.matches(request.scope)[0] is not Match.NONE]
        answer.headers["allow"] = ", ".join(sorted({m for one in there for m in one.methods or ()}))
    return answer


def _failed(_request: Request, _error: Exception) -> Response:
    return _json(FAILED, 500, PROBLEM_TYPE.decode())
