"""What a client asks for on behalf of people who label: ``client.queue.claim("flights", "ada")``."""

from headwater.serving.api.queue_schemas import AnswerResult, SkipResult
from headwater.serving.client import calls
from headwater.serving.client.sending import AsyncSend, Send
from headwater.spec.data.records import LabelValue
from headwater.spec.serving.queue_results import ClaimedQuestion, QueueStatistics

__all__ = ["AsyncQueueClient", "QueueClient"]


class QueueClient:
    """The queue for people; :attr:`Client.queue` is one.

    A pipeline is given by its name. Each raises what the service says: SchemaError where something does
    not fit, NotFoundError where a pipeline asks nobody, ConflictError where the person does not hold the
    question.

    Parameters
    ----------
    send
        The client's.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    def state(self, pipeline: str) -> QueueStatistics:
        """Count what waits and what was answered, and measure how far people agree."""
        return self._send(calls.queue(pipeline))

    def claim(
        self, pipeline: str, person: str, *, many: int = 1, lease_s: int | None = None
    ) -> list[ClaimedQuestion]:
        """Lease questions to a person; those that the person holds come first, with a new lease.

        Parameters
        ----------
        pipeline, person
            Whose questions, and who is to answer.
        many
            How many the person is to hold.
        lease_s
            For how many seconds; as declared where not given.
        """
        return self._send(calls.claim(pipeline, person, many, lease_s)).questions

    def answer(self, pipeline: str, person: str, prediction_id: str, value: LabelValue) -> AnswerResult:
        """Record a person's answer as a label; durable when this returns."""
        return self._send(calls.answer(pipeline, person, prediction_id, value))

    def skip(self, pipeline: str, person: str, prediction_id: str) -> SkipResult:
        """Give a question back for good: others are asked, until three people have skipped it."""
        return self._send(calls.skip(pipeline, person, prediction_id))


class AsyncQueueClient:
    """The queue for people, for an event loop; as :class:`QueueClient`.

    Parameters
    ----------
    send
        The client's.
    """

    def __init__(self, send: AsyncSend) -> None:
        self._send = send

    async def state(self, pipeline: str) -> QueueStatistics:
        """Count what waits and what was answered, and measure how far people agree."""
        return await self._send(calls.queue(pipeline))

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
        """Give a question back for good, as :meth:`QueueClient.skip` does."""
        return await self._send(calls.skip(pipeline, person, prediction_id))
