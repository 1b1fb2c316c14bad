"""The routes of the label queue: claim, answer, skip, counts, and classes."""

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.routing import Route

from headwater.infra.clock import Clock
from headwater.infra.settings import Settings
from headwater.serving.api.operations import ANSWER, CLAIM, CLASSES, QUEUE, SKIP
from headwater.serving.api.queue_schemas import (
    AnswerRequest,
    AnswerResult,
    ClaimAnswer,
    ClaimRequest,
    SkipRequest,
    SkipResult,
)
from headwater.serving.http.fast_routes import Pipelines, named
from headwater.serving.http.routes import route
from headwater.spec.errors import NotFoundError
from headwater.spec.serving.queue_results import KnownClass, QueueStatistics

if TYPE_CHECKING:
    from headwater.features.label_queue.label_queue import LabelQueue
    from headwater.infra.store.database import Database

__all__ = ["LabelQueues", "queue_routes"]


def queue_routes(queues: "LabelQueues") -> list[Route]:
    """Make the routes below ``/queue``."""

    async def claim(request: Request, body: ClaimRequest) -> ClaimAnswer:
        queue = await queues.of(request)
        questions = await asyncio.to_thread(queue.claim, body.person, body.many, body.lease_s)
        return ClaimAnswer(questions=questions)

    async def answer(request: Request, body: AnswerRequest) -> AnswerResult:
        queue = await queues.of(request)
        status = await asyncio.to_thread(queue.answer, body.person, body.prediction_id, body.value)
        return AnswerResult(prediction_id=body.prediction_id, status=status)

    async def skip(request: Request, body: SkipRequest) -> SkipResult:
        queue = await queues.of(request)
        await asyncio.to_thread(queue.skip, body.person, body.prediction_id)
        return SkipResult(prediction_id=body.prediction_id)

    async def state(request: Request, _query: None) -> QueueStatistics:
        queue = await queues.of(request)
        return await asyncio.to_thread(queue.counts)

    async def classes(request: Request, _query: None) -> list[KnownClass]:
        queue = await queues.of(request)
        return await asyncio.to_thread(queue.classes)

    return [
        route(CLAIM, claim),
        route(ANSWER, answer),
        route(SKIP, skip),
        route(QUEUE, state),
        route(CLASSES, classes),
    ]


class LabelQueues:
    """The label queues of a worker; the first use opens the operational database.

    Parameters
    ----------
    served
        The pipelines, whose inboxes store the labels.
    settings, clock
        The address of the operational database, and the time.
    """

    def __init__(self, served: Pipelines, settings: Settings, clock: Clock) -> None:
        self._served = served
        self._settings = settings
        self._clock = clock
        self._opening = asyncio.Lock()
        self._database: Database | None = None
        self._queues: dict[str, LabelQueue] = {}

    async def of(self, request: Request) -> "LabelQueue":
        """Return the queue of the pipeline that a request's path names.

        Raises
        ------
        NotFoundError
            If no pipeline has that name, or it declares no people.
        """
        name = request.path_params["pipeline"]
        pipeline = named(self._served, name).pipeline
        if pipeline.people is None:
            raise NotFoundError(
                f"pipeline {name!r} has no label queue", hint="declare people=People() on it"
            )
        async with self._opening:
            if name not in self._queues:
                self._queues[name] = await asyncio.to_thread(self._open, name)
        return self._queues[name]

    def close(self) -> None:
        """Close the database, if it was opened."""
        if self._database is not None:
            self._database.close()

    def _open(self, name: str) -> "LabelQueue":
        from headwater.features.label_queue.label_queue import LabelQueue  # noqa: PLC0415 - predicting needs no SQL
        from headwater.features.read.repository import register  # noqa: PLC0415
        from headwater.infra.store.database import Database  # noqa: PLC0415

        if self._database is None:
            self._database = Database(self._settings.operational_url)
        one = self._served[name]
        pipeline_id = register(self._database, one.pipeline, one.recorder.inbox)
        return LabelQueue(one.pipeline, pipeline_id, one.recorder, self._database, self._clock)
