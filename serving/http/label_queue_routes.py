"""The queue for people over HTTP: claim, answer, skip, and how it stands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Body, Path
from pydantic import BaseModel, ConfigDict, Field

from headwater.infra.clock import Clock
from headwater.infra.settings import Settings
from headwater.serving.http.fast_routes import Pipelines, named
from headwater.serving.http.limited_route import LimitedRoute, problem_of_status
from headwater.spec.data.records import FeatureValue
from headwater.spec.errors import NotFoundError
from headwater.spec.serving.queue import LONGEST_LEASE_S, MOST_CLAIMED, Why

if TYPE_CHECKING:
    from headwater.features.label_queue.label_queue import LabelQueue
    from headwater.infra.store.database import Database

__all__ = ["queue_router"]

_Person = Annotated[
    str, Field(min_length=1, max_length=100, description="Who; printable, without #", examples=["ada"])
]
_PredictionId = Annotated[str, Field(min_length=1, max_length=200, examples=["order-17"])]
_Named = Annotated[str, Path(max_length=63, description="Name of the pipeline")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ClaimRequest(_Model):
    """Whose questions, how many, for how long."""

    person: _Person
    many: Annotated[int, Field(ge=1, le=MOST_CLAIMED, description="How many the person is to hold")] = 1
    lease_s: Annotated[
        int | None,
        Field(ge=1, le=LONGEST_LEASE_S, description="In seconds; as declared where not given"),
    ] = None


class ClaimedQuestionModel(BaseModel):
    """A question that the person holds. What the version answered is left out: it would sway."""

    prediction_id: str
    why: Why
    until: datetime
    features: dict[str, FeatureValue]
    entity: dict[str, str]
    served_at: datetime
    version: str


class ClaimAnswer(BaseModel):
    """What the person holds now, what was held before first; empty where nothing waits."""

    questions: list[ClaimedQuestionModel]


class AnswerRequest(_Model):
    """What a person says."""

    person: _Person
    prediction_id: _PredictionId
    value: Annotated[
        bool | float | Annotated[str, Field(max_length=10_000)],
        Field(description="true or false, a class, or a number, as the task has it", examples=[True]),
    ]


class AnswerResult(BaseModel):
    """Recorded as a label, or known: the same was recorded before. Durable either way."""

    prediction_id: str
    status: Literal["recorded", "known"]


class SkipRequest(_Model):
    """What a person cannot answer."""

    person: _Person
    prediction_id: _PredictionId


class SkipResult(BaseModel):
    """The question goes to others; the person is not asked again."""

    prediction_id: str
    status: Literal["skipped"] = "skipped"


class AgreementModel(BaseModel):
    """How far the first two answers to the same question agree."""

    pairs: int
    raw: float | None = Field(description="Share of the pairs that agree")
    kappa: float | None = Field(description="Cohen's; none for fewer than two classes, or a regression")
    mean_difference: float | None = Field(description="For a regression")


class QueueState(BaseModel):
    """How a queue stands."""

    open_random: int = Field(description="Wait for an answer; drawn at random, for honest metrics")
    open_uncertain: int = Field(description="Wait for an answer; the version was uncertain")
    claimed: int = Field(description="Claims whose lease has not ended")
    answered: int = Field(description="Questions that have the answers they want")
    answers: int
    skips: int
    people: int = Field(description="Who have answered or skipped")
    given_up: int = Field(description="Three people skipped it, and nobody answered")
    labelled: int = Field(description="The truth came from elsewhere before an answer")
    behind: int = Field(description="Sequenced records at which the queue has not looked yet")
    agreement: AgreementModel


def queue_router(served: Pipelines, settings: Settings, clock: Clock) -> APIRouter:
    """Make the routes below ``/queue``.

    Parameters
    ----------
    served
        The pipelines; labels go into their inboxes.
    settings, clock
        Where the operational database is, and the time.
    """
    queues = _Queues(served, settings, clock)

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        yield
        queues.close()

    router = APIRouter(
        prefix="/queue/{pipeline}",
        tags=["queue for people"],
        route_class=LimitedRoute,
        lifespan=lifespan,
        responses={status: problem_of_status(words) for status, words in _PROBLEMS.items()},
    )
    _add_routes(router, queues)
    return router


def _add_routes(router: APIRouter, queues: "_Queues") -> None:
    @router.post("/claim")
    async def claim(pipeline: _Named, asked: Annotated[ClaimRequest, Body()]) -> ClaimAnswer:
        """Give a person questions to answer, and keep them for him until the lease ends.

        What he holds already comes first, with a new lease: the request may be sent again.
        """
        queue = await queues.of(pipeline)
        found = await asyncio.to_thread(queue.claim, asked.person, asked.many, asked.lease_s)
        return ClaimAnswer.model_validate({"questions": found}, from_attributes=True)

    @router.post("/answer")
    async def answer(pipeline: _Named, said: Annotated[AnswerRequest, Body()]) -> AnswerResult:
        """Record what a person says as a label with source `human`; answered when it is durable.

        The same again is known already; another value is a change of mind, and a revision. Where two
        people differ a third is asked, whose label counts.
        """
        queue = await queues.of(pipeline)
        status = await asyncio.to_thread(queue.answer, said.person, said.prediction_id, said.value)
        return AnswerResult(prediction_id=said.prediction_id, status=status)

    @router.post("/skip")
    async def skip(pipeline: _Named, skipped: Annotated[SkipRequest, Body()]) -> SkipResult:
        """Give a question back for good: others are asked, until three have skipped it."""
        queue = await queues.of(pipeline)
        await asyncio.to_thread(queue.skip, skipped.person, skipped.prediction_id)
        return SkipResult(prediction_id=skipped.prediction_id)

    @router.get("")
    async def state(pipeline: _Named) -> QueueState:
        """Count what waits, what was answered, and how far people agree."""
        queue = await queues.of(pipeline)
        found = await asyncio.to_thread(queue.counts)
        return QueueState.model_validate(found, from_attributes=True)


_PROBLEMS = {
    404: "No such pipeline, it asks nobody, or nothing is asked about that prediction",
    408: "The body came too slowly",
    409: "The person does not hold the question, or its truth came from elsewhere",
    413: "The body is too long",
    422: "It does not fit; the detail names the field",
    503: "Storage refuses: send it again",
}


class _Queues:
    """The queues of a worker: the operational database is opened when one is first asked for."""

    def __init__(self, served: Pipelines, settings: Settings, clock: Clock) -> None:
        self._served = served
        self._settings = settings
        self._clock = clock
        self._opening = asyncio.Lock()
        self._database: Database | None = None
        self._queues: dict[str, LabelQueue] = {}

    async def of(self, name: str) -> "LabelQueue":
        """Give the queue of a pipeline.

        Raises
        ------
        NotFoundError
            If there is none of that name, or it asks nobody.
        """
        pipeline = named(self._served, name).pipeline
        if pipeline.people is None:
            raise NotFoundError(f"pipeline {name!r} asks nobody", hint="declare people=People() on it")
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
