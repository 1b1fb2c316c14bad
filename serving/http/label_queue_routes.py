"""The label queue over HTTP: claim, answer and skip questions, and count them."""

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
    str,
    Field(
        min_length=1,
        max_length=100,
        description="Name of the person; printable, without #",
        examples=["ada"],
    ),
]
_PredictionId = Annotated[str, Field(min_length=1, max_length=200, examples=["order-17"])]
_Named = Annotated[str, Path(max_length=63, description="Name of the pipeline")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ClaimRequest(_Model):
    """A claim of questions: the person, how many, and for how long."""

    person: _Person
    many: Annotated[int, Field(ge=1, le=MOST_CLAIMED, description="How many the person is to hold")] = 1
    lease_s: Annotated[
        int | None,
        Field(ge=1, le=LONGEST_LEASE_S, description="In seconds; as declared if not given"),
    ] = None


class ClaimedQuestionModel(BaseModel):
    """A question that the person holds, without the version's output, which would sway the person."""

    prediction_id: str
    why: Why
    until: datetime
    features: dict[str, FeatureValue]
    entity: dict[str, str]
    served_at: datetime
    version: str


class ClaimAnswer(BaseModel):
    """The questions that the person holds now, earlier claims first; empty if none waits."""

    questions: list[ClaimedQuestionModel]


class AnswerRequest(_Model):
    """An answer of a person."""

    person: _Person
    prediction_id: _PredictionId
    value: Annotated[
        bool | float | Annotated[str, Field(max_length=10_000)],
        Field(description="true or false, a class, or a number, as the task has it", examples=[True]),
    ]


class AnswerResult(BaseModel):
    """The answer is recorded as a label, or known since it was recorded before; durable either way."""

    prediction_id: str
    status: Literal["recorded", "known"]


class SkipRequest(_Model):
    """A question that a person cannot answer."""

    person: _Person
    prediction_id: _PredictionId


class SkipResult(BaseModel):
    """The question goes to other people; the person is not asked again."""

    prediction_id: str
    status: Literal["skipped"] = "skipped"


class AgreementModel(BaseModel):
    """Agreement of the first two answers to the same question."""

    pairs: int
    raw: float | None = Field(description="Share of the pairs that agree")
    kappa: float | None = Field(description="Cohen's; none for fewer than two classes, or a regression")
    mean_difference: float | None = Field(description="For a regression")


class QueueState(BaseModel):
    """Counts of a queue."""

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
        The pipelines, whose inboxes store the labels.
    settings, clock
        The address of the operational database, and the time.
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
    async def claim(pipeline: _Named, request: Annotated[ClaimRequest, Body()]) -> ClaimAnswer:
        """Claim questions for a person, until the lease ends.

        Questions that the person holds come first, with a new lease: the request may be repeated.
        """
        queue = await queues.of(pipeline)
        questions = await asyncio.to_thread(queue.claim, request.person, request.many, request.lease_s)
        return ClaimAnswer.model_validate({"questions": questions}, from_attributes=True)

    @router.post("/answer")
    async def answer(pipeline: _Named, request: Annotated[AnswerRequest, Body()]) -> AnswerResult:
        """Record an answer as a label with source `human`; the reply comes once it is durable.

        The same answer again is known already; another value is a revision. If two people differ, a
        third is asked, whose label counts.
        """
        queue = await queues.of(pipeline)
        status = await asyncio.to_thread(
            queue.answer, request.person, request.prediction_id, request.value
        )
        return AnswerResult(prediction_id=request.prediction_id, status=status)

    @router.post("/skip")
    async def skip(pipeline: _Named, request: Annotated[SkipRequest, Body()]) -> SkipResult:
        """Skip a question for good: other people are asked, until three have skipped it."""
        queue = await queues.of(pipeline)
        await asyncio.to_thread(queue.skip, request.person, request.prediction_id)
        return SkipResult(prediction_id=request.prediction_id)

    @router.get("")
    async def state(pipeline: _Named) -> QueueState:
        """Count open and answered questions, and the agreement of people."""
        queue = await queues.of(pipeline)
        counts = await asyncio.to_thread(queue.counts)
        return QueueState.model_validate(counts, from_attributes=True)


_PROBLEMS = {
    404: "No such pipeline, it asks nobody, or nothing is asked about that prediction",
    408: "The body came too slowly",
    409: "The person does not hold the question, or its truth came from elsewhere",
    413: "The body is too long",
    422: "It does not fit; the detail names the field",
    503: "Storage refuses: send it again",
}


class _Queues:
    """The label queues of a worker; the first use opens the operational database."""

    def __init__(self, served: Pipelines, settings: Settings, clock: Clock) -> None:
        self._served = served
        self._settings = settings
        self._clock = clock
        self._opening = asyncio.Lock()
        self._database: Database | None = None
        self._queues: dict[str, LabelQueue] = {}

    async def of(self, name: str) -> "LabelQueue":
        """Return the queue of a pipeline.

        Raises
        ------
        NotFoundError
            If no pipeline has that name, or it declares no people.
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
        served = self._served[name]
        pipeline_id = register(self._database, served.pipeline, served.recorder.inbox)
        return LabelQueue(served.pipeline, pipeline_id, served.recorder, self._database, self._clock)
