"""Clients of the service: predict, label, look up; they import none of the server.

Every prediction gets its id, and every label its key, before it is sent. A request that is sent again
is the same request, so retries are safe.

>>> from headwater.serving.client.client import Client
>>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     answer = client.predict({"x": 1.0}, pipeline="toy")
...     client.label(answer.id, True, pipeline="toy")
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self, TypeVar

import httpx

from headwater.serving.api.operations import V2_READY
from headwater.serving.api.schemas import BatchAnswer, LabelResult, PredictionAnswer
from headwater.serving.client import calls
from headwater.serving.client.calls import Call, Features
from headwater.serving.client.credentials import Credentials
from headwater.serving.client.operator_client import AsyncOperatorClient, OperatorClient
from headwater.serving.client.queue_client import AsyncQueueClient, QueueClient
from headwater.serving.client.sending import RetryPolicy, read_answer, trace_headers, unreachable
from headwater.spec.data.records import LabelValue, Recorded, Source

__all__ = ["AsyncClient", "Client"]

Found = TypeVar("Found")

_JSON = {"content-type": "application/json"}


class Client:
    """A client that waits for each answer.

    Parameters
    ----------
    address
        Address of the service, such as ``http://127.0.0.1:8000``.
    key
        The API key, if the service needs one; if not given, as :class:`Credentials` has it.
    retries
        How often a request is sent again, if it got no answer or the service was busy.
    timeout_s
        Seconds to wait for an answer.
    """

    def __init__(
        self, address: str, *, key: str | None = None, retries: int = 8, timeout_s: float = 10.0
    ) -> None:
        self._retry = RetryPolicy(retries)
        self._credentials = Credentials(address, key)
        self._http = httpx.Client(base_url=address, timeout=timeout_s, mounts=self._credentials.mounts)
        self.operate = OperatorClient(self._send)
        """Requests of operators: routing, shadows, learning, champions."""
        self.queue = QueueClient(self._send)
        """Requests of people who label: claim, answer, skip."""

    def predict(
        self,
        features: Features,
        *,
        pipeline: str | None = None,
        id: str | None = None,  # noqa: A002 - its name on the wire
        entity: Mapping[str, str] | None = None,
        due_at: datetime | None = None,
    ) -> PredictionAnswer:
        """Request one prediction; it is logged durably when this returns.

        Parameters
        ----------
        features
            Values by name.
        pipeline
            The pipeline's name; may be left out if the service has only one.
        id
            Unique within the pipeline; made if not given.
        entity, due_at
            Entity keys by name; when the label is due, for a label rule with ``due="due_at"``.

        Raises
        ------
        SchemaError, ConflictError, NotFoundError, NotReadyError, StorageError
            The error of the service; StorageError also if it cannot be reached.
        """
        return self._send(calls.predict(features, pipeline, id, entity, due_at))

    def predict_many(
        self, items: Sequence[Features], *, pipeline: str | None = None
    ) -> list[PredictionAnswer]:
        """Request many predictions, all or none; each gets an id.

        Raises
        ------
        HeadwaterError
            As for :meth:`predict`.
        """
        return self.send_predictions(calls.unnamed(items), pipeline=pipeline)

    def send_predictions(
        self, items: Sequence[Mapping[str, Any]], *, pipeline: str | None = None
    ) -> list[PredictionAnswer]:
        """Request many predictions as the wire has them: ``id``, ``features``, ``entity``, ``unit``.

        Raises
        ------
        HeadwaterError
            As for :meth:`predict`.
        """
        return self._send(calls.send_predictions(items, pipeline)).predictions

    def label(
        self,
        prediction_id: str,
        value: LabelValue,
        *,
        pipeline: str | None = None,
        known_at: datetime | None = None,
        source: Source = "natural",
        key: str | None = None,
    ) -> LabelResult:
        """Label one prediction; the label is durable when this returns.

        Parameters
        ----------
        prediction_id, value
            Id of the prediction, and its label's value.
        known_at
            When it became known, with a zone; when the service receives it if not given.
        source
            Where it comes from: ``"natural"`` or ``"human"``.
        key
            The client's key: the same key again must bear the same value; a revision bears another. With
            neither this nor `known_at`, the call makes one: called again, it is another revision.

        Raises
        ------
        HeadwaterError
            As for :meth:`predict`.
        """
        return self._send(calls.label(prediction_id, value, pipeline, known_at, source, key))

    def send_labels(
        self, items: Sequence[Mapping[str, Any]], *, pipeline: str | None = None
    ) -> list[LabelResult]:
        """Send many labels as the wire has them, each with its own result.

        Raises
        ------
        HeadwaterError
            As for :meth:`predict`.
        """
        return self._send(calls.send_labels(items, pipeline)).labels

    def prediction(self, prediction_id: str, *, pipeline: str | None = None) -> Recorded:
        """Return the record of a prediction.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        return self._send(calls.prediction(prediction_id, pipeline))

    def batch(
        self,
        key: str,
        *,
        pipeline: str,
        features: Features | None = None,
        id: str | None = None,  # noqa: A002 - its name on the wire
    ) -> BatchAnswer:
        """Return the newest batch run's answer for a key.

        Parameters
        ----------
        key, pipeline
            The key, and the pipeline's name.
        features
            Values by name, for the online model to answer if the batch has no answer; without them, a
            missing answer is an error.
        id
            Id of the online model's prediction; made if not given.

        Raises
        ------
        NotFoundError
            If the batch has no answer, and no features were given.
        HeadwaterError
            As for :meth:`predict`.
        """
        return self._send(calls.batch(key, pipeline, features, id))

    def is_ready(self) -> bool:
        """Return whether every pipeline has a serving version; False if the service does not answer."""
        try:
            return self._http.get(V2_READY.path).is_success
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, call: Call[Found], /) -> Found:
        attempt = 0
        while True:
            answer, failure = None, None
            try:
                answer = self._http.request(
                    call.operation.method,
                    call.path,
                    content=call.body,
                    params=call.params,
                    headers=_JSON | trace_headers() | self._credentials.headers(call.operation),
                )
            except httpx.TransportError as error:
                failure = error
            pause_s = self._retry.pause_s(attempt, answer)
            if answer is not None and (answer.is_success or pause_s is None):
                return read_answer(answer, call.kind)
            if pause_s is None:
                raise unreachable(failure) from failure
            time.sleep(pause_s)
            attempt += 1


class AsyncClient:
    """A client for an event loop; it may send many requests at once.

    Parameters
    ----------
    address, key, retries, timeout_s
        As for :class:`Client`.
    """

    def __init__(
        self, address: str, *, key: str | None = None, retries: int = 8, timeout_s: float = 10.0
    ) -> None:
        self._retry = RetryPolicy(retries)
        self._credentials = Credentials(address, key)
        mounts = self._credentials.mounts
        self._http = httpx.AsyncClient(base_url=address, timeout=timeout_s, mounts=mounts)
        self.operate = AsyncOperatorClient(self._send)
        """Requests of operators, as :attr:`Client.operate`."""
        self.queue = AsyncQueueClient(self._send)
        """What people who label ask for, as :attr:`Client.queue`."""

    async def predict(
        self,
        features: Features,
        *,
        pipeline: str | None = None,
        id: str | None = None,  # noqa: A002 - its name on the wire
        entity: Mapping[str, str] | None = None,
        due_at: datetime | None = None,
    ) -> PredictionAnswer:
        """Request one prediction, as :meth:`Client.predict` does."""
        return await self._send(calls.predict(features, pipeline, id, entity, due_at))

    async def predict_many(
        self, items: Sequence[Features], *, pipeline: str | None = None
    ) -> list[PredictionAnswer]:
        """Request many predictions, as :meth:`Client.predict_many` does."""
        return await self.send_predictions(calls.unnamed(items), pipeline=pipeline)

    async def send_predictions(
        self, items: Sequence[Mapping[str, Any]], *, pipeline: str | None = None
    ) -> list[PredictionAnswer]:
        """Request many predictions in the wire's form, as :meth:`Client.send_predictions` does."""
        return (await self._send(calls.send_predictions(items, pipeline))).predictions

    async def label(
        self,
        prediction_id: str,
        value: LabelValue,
        *,
        pipeline: str | None = None,
        known_at: datetime | None = None,
        source: Source = "natural",
        key: str | None = None,
    ) -> LabelResult:
        """Label one prediction, as :meth:`Client.label` does."""
        return await self._send(calls.label(prediction_id, value, pipeline, known_at, source, key))

    async def send_labels(
        self, items: Sequence[Mapping[str, Any]], *, pipeline: str | None = None
    ) -> list[LabelResult]:
        """Send many labels in the wire's form, as :meth:`Client.send_labels` does."""
        return (await self._send(calls.send_labels(items, pipeline))).labels

    async def prediction(self, prediction_id: str, *, pipeline: str | None = None) -> Recorded:
        """Return the record of a prediction, as :meth:`Client.prediction` does."""
        return await self._send(calls.prediction(prediction_id, pipeline))

    async def batch(
        self,
        key: str,
        *,
        pipeline: str,
        features: Features | None = None,
        id: str | None = None,  # noqa: A002 - its name on the wire
    ) -> BatchAnswer:
        """Return the newest batch run's answer for a key, as :meth:`Client.batch` does."""
        return await self._send(calls.batch(key, pipeline, features, id))

    async def is_ready(self) -> bool:
        """Return whether every pipeline has a serving version; False if the service does not answer."""
        try:
            return (await self._http.get(V2_READY.path)).is_success
        except httpx.TransportError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, call: Call[Found], /) -> Found:
        attempt = 0
        while True:
            answer, failure = None, None
            try:
                answer = await self._http.request(
                    call.operation.method,
                    call.path,
                    content=call.body,
                    params=call.params,
                    headers=_JSON | trace_headers() | self._credentials.headers(call.operation),
                )
            except httpx.TransportError as error:
                failure = error
            pause_s = self._retry.pause_s(attempt, answer)
            if answer is not None and (answer.is_success or pause_s is None):
                return read_answer(answer, call.kind)
            if pause_s is None:
                raise unreachable(failure) from failure
            await asyncio.sleep(pause_s)
            attempt += 1
