"""The service with traces: made in place of the plain one where they are switched on.

A request's span goes on from the ``traceparent`` of whoever sent it. Within it are what the pipeline
did, with prediction ids, and how long an answer waited for its record's sync.
"""

from collections.abc import Sequence

import msgspec
from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater.features.record.inbox import Entry
from headwater.infra.tracing import span, tracer
from headwater.serving.api.operations import LABEL, PREDICT
from headwater.serving.api.schemas import LabelItem, LabelResult, PredictionAnswer, PredictItem
from headwater.serving.http.routes import ROUTE_OF_SCOPE
from headwater.serving.worker.group_commit import Ended, GroupCommit
from headwater.serving.worker.served_pipeline import ServedPipeline

__all__ = ["TracedPipeline", "TracingMiddleware"]

_PROBED = ("/v2/health/live", "/v2/health/ready", "/metrics")
_MOST_IDS = 100


class TracingMiddleware:
    """Wraps the service: a span for each request, but for those that only look whether it lives.

    Parameters
    ----------
    app
        The service.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tracer = tracer()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; or run the service's start and end."""
        if scope["type"] != "http" or scope["path"] in _PROBED:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope["method"]
        with self._tracer.start_as_current_span(
            method,
            context=extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method},
            record_exception=False,
        ) as request:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    request.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        request.set_status(StatusCode.ERROR)
                await send(message)

            await self._app(scope, receive, noting)
            route = _route(scope)
            if route:
                request.update_name(f"{method} {route}")
                request.set_attribute("http.route", route)


class _TracedCommit(GroupCommit):
    """Tells how long records waited for their sync."""

    async def append(self, batches: Sequence[Sequence[Entry]]) -> list[Ended]:
        """Store batches, as :meth:`GroupCommit.append` does."""
        with span("sync", {"records": sum(map(len, batches))}):
            return await super().append(batches)


class TracedPipeline(ServedPipeline):
    """Answers for one pipeline, and tells of which predictions."""

    commits = _TracedCommit

    async def predict(self, items: Sequence[PredictItem]) -> list[PredictionAnswer]:
        """Answer predictions, as :meth:`ServedPipeline.predict` does."""
        with span("predict", {"pipeline": self.pipeline.name, "count": len(items)}):
            answers = await super().predict(items)
            _tell([answer.id for answer in answers])
            first = answers[0] if answers else None
            if first is not None:
                trace.get_current_span().set_attributes(
                    {"headwater.version": first.version, "headwater.role": first.role}
                )
            return answers

    async def label(self, items: Sequence[msgspec.Raw], by: str) -> list[LabelResult]:
        """Record labels, as :meth:`ServedPipeline.label` does."""
        with span("label", {"pipeline": self.pipeline.name, "count": len(items)}):
            labelled = await super().label(items, by)
            _tell([one.prediction_id for one in labelled])
            return labelled

    async def label_one(self, item: LabelItem, by: str) -> LabelResult:
        """Record one label, as :meth:`ServedPipeline.label_one` does."""
        with span("label", {"pipeline": self.pipeline.name, "count": 1}):
            _tell([item.prediction_id])
            return await super().label_one(item, by)


def _tell(ids: list[str]) -> None:
    """Say which predictions a span is about: one as itself, many as a list of bounded length."""
    made = trace.get_current_span()
    if len(ids) == 1:
        made.set_attribute("headwater.prediction_id", ids[0])
    else:
        made.set_attribute("headwater.prediction_ids", ids[:_MOST_IDS])


def _route(scope: Scope) -> str:
    """Give a request's route, not its path, of which there are as many as there are ids."""
    found = scope["path"] if scope["path"] in (PREDICT.path, LABEL.path) else ""
    return str(scope.get(ROUTE_OF_SCOPE, found))
