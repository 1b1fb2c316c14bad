"""Requests of people who label: ``client.queue.claim("flights", "ada")``."""

from headwater.serving.api.queue_schemas import AnswerResult, SkipResult
from headwater.serving.client import calls
from headwater.serving.client.sending import AsyncSend, Send
from headwater.spec.data.records import LabelValue
from headwater.spec.serving.queue_results import ClaimedQuestion, KnownClass, QueueStatistics

__all__ = ["AsyncQueueClient", "QueueClient"]


class QueueClient:
    """Send requests to the label queue; :attr:`Client.queue` is one.

    Each method takes a pipeline's name, and raises the error of the service: SchemaError if the request
    does not fit, NotFoundError if the pipeline declares no people, ConflictError if the person does not
    hold the question, NotReadyError if no question waits and the queue is not filled yet.

    Parameters
    ----------
    send
        The client's function that sends a request.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    def state(self, pipeline: str) -> QueueStatistics:
        """Count open and answered questions, and measure the agreement of people."""
        return self._send(calls.queue(pipeline))

    def classes(self, pipeline: str) -> list[KnownClass]:
        """List the classes that people may answer with; NotFoundError if answers are numbers."""
        return self._send(calls.classes(pipeline))

    def claim(
        self, pipeline: str, person: str, *, many: int = 1, lease_s: int | None = None
    ) -> list[ClaimedQuestion]:
        """Lease questions to a person; those that the person holds come first, with a new lease.

        Parameters
        ----------
        pipeline, person
            The pipeline's name, and the person's.
        many
            The number of questions that the person is to hold.
        lease_s
            Seconds of the lease; as declared if not given.
        """
        return self._send(calls.claim(pipeline, person, many, lease_s)).questions

    def answer(self, pipeline: str, person: str, prediction_id: str, value: LabelValue) -> AnswerResult:
        """Record a person's answer as a label; durable when this returns."""
        return self._send(calls.answer(pipeline, person, prediction_id, value))

    def skip(self, pipeline: str, person: str, prediction_id: str) -> SkipResult:
        """Skip a question for good: other people are asked, until three have skipped it."""
        return self._send(calls.skip(pipeline, person, prediction_id))


class AsyncQueueClient:
    """Send requests to the label queue from an event loop, as :class:`QueueClient` does.

    Parameters
    ----------
    send
        The client's function that sends a request.
    """

    def __init__(self, send: AsyncSend) -> None:
        self._send = send

    async def state(self, pipeline: str) -> QueueStatistics:
        """Count open and answered questions, and measure the agreement of people."""
        return await self._send(calls.queue(pipeline))

    async def classes(self, pipeline: str) -> list[KnownClass]:
        """List the classes that people may answer with; NotFoundError if answers are numbers."""
        return await self._send(calls.classes(pipeline))

    async def claim(
        self, pipeline: str, person: str, *, many: int = 1, lease_s: int | None = None
    ) -> list[ClaimedQuestion]:
        """Lease questions to a person, as :meth:`QueueClient.claim` does."""
        return (await self._send(calls.claim(pipeline, person, many, lease_s))).questions

    async def answer(
        self, pipeline: str, person: str, prediction_id: str, value: LabelValue
    ) -> AnswerResult:
        """Record a person's answer as a label; durable when this returns."""
        return await self._send(calls.answer(pipeline, person, prediction_id, value))

    async def skip(self, pipeline: str, person: str, prediction_id: str) -> SkipResult:
        """Skip a question for good, as :meth:`QueueClient.skip` does."""
        return await self._send(calls.skip(pipeline, person, prediction_id))
