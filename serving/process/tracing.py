"""The service with traces: these classes take the place of the plain ones if tracing is on.

A request's span continues the ``traceparent`` of its sender. Within it are spans of the pipeline's work,
with prediction ids, and of the wait for the record's sync.
"""

from collections.abc import Sequence

import msgspec
from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater.features.record.entries import Entry
from headwater.infra.tracing import span, tracer
from headwater.serving.api.operations import LABEL, PREDICT
from headwater.serving.api.schemas import LabelItem, LabelResult, PredictionAnswer, PredictItem
from headwater.serving.http.routes import ROUTE_OF_SCOPE
from headwater.serving.worker.group_commit import AppendResult, GroupCommit
from headwater.serving.worker.label_recorder import LabelRecorder
from headwater.serving.worker.predictor import Predictor
from headwater.serving.worker.served_pipeline import ServedPipeline

__all__ = ["TracedPipeline", "TracingMiddleware"]

_PROBED = ("/v2/health/live", "/v2/health/ready", "/metrics")
_MOST_IDS = 100


class TracingMiddleware:
    """Wrap the service: make a span for each request, but for health checks and metrics.

    Parameters
    ----------
    app
        The service.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tracer = tracer()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the start and end of the service."""
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
    """A group commit that traces how long records wait for their sync."""

    async def append(self, batches: Sequence[Sequence[Entry]]) -> list[AppendResult]:
        """Store batches, as :meth:`GroupCommit.append` does."""
        with span("sync", {"records": sum(map(len, batches))}):
            return await super().append(batches)


class _TracedPredictor(Predictor):
    """A predictor that traces predictions by id."""

    async def predict(self, items: Sequence[PredictItem]) -> list[PredictionAnswer]:
        """Answer predictions, as :meth:`Predictor.predict` does."""
        with span("predict", {"pipeline": self.pipeline.name, "count": len(items)}):
            answers = await super().predict(items)
            _set_ids([answer.id for answer in answers])
            first = answers[0] if answers else None
            if first is not None:
                trace.get_current_span().set_attributes(
                    {"headwater.version": first.version, "headwater.role": first.role}
                )
            return answers


class _TracedLabels(LabelRecorder):
    """A recorder of labels that traces them by the ids of their predictions."""

    async def record(
        self, items: Sequence[msgspec.Raw], by: str, key: str | None = None
    ) -> list[LabelResult]:
        """Record labels, as :meth:`LabelRecorder.record` does."""
        with span("label", {"pipeline": self.pipeline.name, "count": len(items)}):
            labelled = await super().record(items, by, key)
            _set_ids([one.prediction_id for one in labelled])
            return labelled

    async def record_one(self, item: LabelItem, by: str) -> LabelResult:
        """Record one label, as :meth:`LabelRecorder.record_one` does."""
        with span("label", {"pipeline": self.pipeline.name, "count": 1}):
            _set_ids([item.prediction_id])
            return await super().record_one(item, by)


class TracedPipeline(ServedPipeline):
    """A served pipeline that is made of traced parts."""

    commits = _TracedCommit
    predictors = _TracedPredictor
    label_recorders = _TracedLabels


def _set_ids(ids: list[str]) -> None:
    """Set the prediction ids of the current span: one id, or a list of bounded length."""
    current = trace.get_current_span()
    if len(ids) == 1:
        current.set_attribute("headwater.prediction_id", ids[0])
    else:
        current.set_attribute("headwater.prediction_ids", ids[:_MOST_IDS])


def _route(scope: Scope) -> str:
    """Return a request's route; its path would differ for every id."""
    found = scope["path"] if scope["path"] in (PREDICT.path, LABEL.path) else ""
    return str(scope.get(ROUTE_OF_SCOPE, found))
