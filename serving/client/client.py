"""Clients of the service: predict, label, look up; they import none of the server.

Every prediction gets its id, and every label its time, before it is sent. A request that is sent again
is the same request, so retries are safe.

>>> from headwater.serving.client.client import Client
>>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
...     answer = client.predict({"x": 1.0}, pipeline="toy")
...     client.label(answer.id, True, pipeline="toy")
"""

import asyncio
import random
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from headwater.infra.ids import new_id
from headwater.serving.api.problems import Problem
from headwater.serving.api.schemas import (
    BatchAnswer,
    LabelResult,
    LabelResults,
    PredictionAnswer,
    PredictionAnswers,
)
from headwater.serving.client.operator_client import AsyncOperatorClient, OperatorClient
from headwater.serving.client.sent import encoded
from headwater.spec import errors
from headwater.spec.data.records import FeatureValue, LabelValue, Recorded, Source
from headwater.spec.data.values import check_name
from headwater.spec.errors import HeadwaterError, StorageError
from headwater.spec.serving.batch import LONGEST_KEY

__all__ = ["AsyncClient", "Client"]

_RETRIED = {408, 425, 429, 502, 503, 504}
_FIRST_WAIT_S = 0.05
_MOST_WAIT_S = 2.0
_Answer = TypeVar("_Answer")
Features = Mapping[str, FeatureValue]


class _ClientBase:
    """The part that both clients share: headers and retries."""

    def __init__(self, retries: int, key: str | None) -> None:
        self._retries = retries
        self._headers = {"content-type": "application/json"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"

    def _pause_s(self, attempt: int, answer: httpx.Response | None) -> float | None:
        """Return the seconds to wait before another attempt; None if there is none."""
        if attempt >= self._retries or (answer is not None and answer.status_code not in _RETRIED):
            return None
        retry_after = "" if answer is None else answer.headers.get("retry-after", "")
        if retry_after.isdigit():
            return min(float(retry_after), _MOST_WAIT_S)
        longest = min(_MOST_WAIT_S, _FIRST_WAIT_S * 2**attempt)
        return float(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, hides nothing


class Client(_ClientBase):
    """A client that waits for each answer.

    Parameters
    ----------
    address
        Address of the service, such as ``http://127.0.0.1:8000``.
    key
        The API key, if the service needs one.
    retries
        How often a request is sent again, if it got no answer or the service was busy.
    timeout_s
        Seconds to wait for an answer.
    """

    def __init__(
        self, address: str, *, key: str | None = None, retries: int = 8, timeout_s: float = 10.0
    ) -> None:
        super().__init__(retries, key)
        self._http = httpx.Client(base_url=address, headers=self._headers, timeout=timeout_s)
        self.operate = OperatorClient(self._send)
        """Requests of operators: routing, shadows, learning, champions."""

    def predict(
        self,
        features: Features,
        *,
        pipeline: str | None = None,
        id: str | None = None,  # noqa: A002 - its name on the wire
        entity: Mapping[str, str] | None = None,
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
        entity
            Entity keys by name.

        Raises
        ------
        SchemaError, ConflictError, NotFoundError, NotReadyError, StorageError
            The error of the service; StorageError also if it cannot be reached.
        """
        return self._post("/predict", _prediction(features, pipeline, id, entity), PredictionAnswer)

    def predict_many(
        self, items: Sequence[Features], *, pipeline: str | None = None
    ) -> list[PredictionAnswer]:
        """Request many predictions, all or none; each gets an id.

        Raises
        ------
        HeadwaterError
            As for :meth:`predict`.
        """
        return self.send_predictions([_item(features) for features in items], pipeline=pipeline)

    def send_predictions(
        self, items: Sequence[Mapping[str, Any]], *, pipeline: str | None = None
    ) -> list[PredictionAnswer]:
        """Request many predictions as the wire has them: ``id``, ``features``, ``entity``, ``unit``.

        Raises
        ------
        HeadwaterError
            As for :meth:`predict`.
        """
        return self._post(
            "/predict", _named({"predictions": items}, pipeline), PredictionAnswers
        ).predictions

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
            When it became known, with a zone; now if not given.
        source
            Where it comes from.
        key
            The client's key: the same key again must bear the same value; a revision bears another.

        Raises
        ------
        HeadwaterError
            As for :meth:`predict`.
        """
        item = _label(prediction_id, value, known_at, source, key)
        return self._post("/labels", _named(item, pipeline), LabelResult)

    def send_labels(
        self, items: Sequence[Mapping[str, Any]], *, pipeline: str | None = None
    ) -> list[LabelResult]:
        """Send many labels as the wire has them, each with its own result.

        Raises
        ------
        HeadwaterError
            As for :meth:`predict`.
        """
        return self._post("/labels", _named({"labels": items}, pipeline), LabelResults).labels

    def prediction(self, prediction_id: str, *, pipeline: str | None = None) -> Recorded:
        """Return the record of a prediction.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        check_name(prediction_id, "prediction_id")
        params = {} if pipeline is None else {"pipeline": pipeline}
        return self._send("GET", f"/predictions/{prediction_id}", None, Recorded, params)

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
        path = _batch_path(pipeline, key)
        if features is None:
            return self._send("GET", path, None, BatchAnswer)
        return self._post(path, _item(features, id), BatchAnswer)

    def is_ready(self) -> bool:
        """Return whether every pipeline has a serving version; False if the service does not answer."""
        try:
            return self._http.get("/v2/health/ready").is_success
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, path: str, body: Mapping[str, Any], kind: type[_Answer]) -> _Answer:
        return self._send("POST", path, encoded(body), kind)

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        kind: type[_Answer],
        params: Mapping[str, str] | None = None,
    ) -> _Answer:
        attempt = 0
        while True:
            answer, failure = None, None
            try:
                answer = self._http.request(
                    method, path, content=body, params=params, headers=_trace_headers()
                )
            except httpx.TransportError as error:
                failure = error
            pause_s = self._pause_s(attempt, answer)
            if answer is not None and (answer.is_success or pause_s is None):
                return _read(answer, kind)
            if pause_s is None:
                raise _unreachable(failure) from failure
            time.sleep(pause_s)
            attempt += 1


class AsyncClient(_ClientBase):
    """A client for an event loop; it may send many requests at once.

    Parameters
    ----------
    address, key, retries, timeout_s
        As for :class:`Client`.
    """

    def __init__(
        self, address: str, *, key: str | None = None, retries: int = 8, timeout_s: float = 10.0
    ) -> None:
        super().__init__(retries, key)
        self._http = httpx.AsyncClient(base_url=address, headers=self._headers, timeout=timeout_s)
        self.operate = AsyncOperatorClient(self._send)
        """Requests of operators, as :attr:`Client.operate`."""

    async def predict(
        self,
        features: Features,
        *,
        pipeline: str | None = None,
        id: str | None = None,  # noqa: A002 - its name on the wire
        entity: Mapping[str, str] | None = None,
    ) -> PredictionAnswer:
        """Request one prediction, as :meth:`Client.predict` does."""
        return await self._post(
            "/predict", _prediction(features, pipeline, id, entity), PredictionAnswer
        )

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
        item = _label(prediction_id, value, known_at, source, key)
        return await self._post("/labels", _named(item, pipeline), LabelResult)

    async def batch(
        self,
        key: str,
        *,
        pipeline: str,
        features: Features | None = None,
        id: str | None = None,  # noqa: A002 - its name on the wire
    ) -> BatchAnswer:
        """Return the newest batch run's answer for a key, as :meth:`Client.batch` does."""
        path = _batch_path(pipeline, key)
        if features is None:
            return await self._send("GET", path, None, BatchAnswer)
        return await self._post(path, _item(features, id), BatchAnswer)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _post(self, path: str, body: Mapping[str, Any], kind: type[_Answer]) -> _Answer:
        return await self._send("POST", path, encoded(body), kind)

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        kind: type[_Answer],
        params: Mapping[str, str] | None = None,
    ) -> _Answer:
        attempt = 0
        while True:
            answer, failure = None, None
            try:
                answer = await self._http.request(
                    method, path, content=body, params=params, headers=_trace_headers()
                )
            except httpx.TransportError as error:
                failure = error
            pause_s = self._pause_s(attempt, answer)
            if answer is not None and (answer.is_success or pause_s is None):
                return _read(answer, kind)
            if pause_s is None:
                raise _unreachable(failure) from failure
            await asyncio.sleep(pause_s)
            attempt += 1


def _trace_headers() -> dict[str, str]:
    """Return headers that continue the caller's trace, if there is one (W3C trace context)."""
    headers: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry.propagate import inject  # noqa: PLC0415 - only beside what is there already

        inject(headers)
    return headers


def _batch_path(pipeline: str, key: str) -> str:
    check_name(key, "key", LONGEST_KEY)
    return f"/batch/{pipeline}/{quote(key, safe='')}"


def _item(
    features: Features, id_: str | None = None, entity: Mapping[str, str] | None = None
) -> dict[str, Any]:
    item: dict[str, Any] = {"id": id_ or new_id(), "features": features}
    return {**item, "entity": entity} if entity else item


def _prediction(
    features: Features, pipeline: str | None, id_: str | None, entity: Mapping[str, str] | None
) -> dict[str, Any]:
    return _named(_item(features, id_, entity), pipeline)


def _label(
    prediction_id: str, value: LabelValue, known_at: datetime | None, source: Source, key: str | None
) -> dict[str, Any]:
    item: dict[str, Any] = {
        "prediction_id": prediction_id,
        "value": value,
        "known_at": known_at or datetime.now(UTC),
        "source": source,
    }
    return item if key is None else {**item, "key": key}


def _named(body: Mapping[str, Any], pipeline: str | None) -> dict[str, Any]:
    return dict(body) if pipeline is None else {"pipeline": pipeline, **body}


def _read(answer: httpx.Response, kind: type[_Answer]) -> _Answer:
    if answer.is_success:
        return msgspec.json.decode(answer.content, type=kind)
    try:
        problem = msgspec.json.decode(answer.content, type=Problem)
    except msgspec.DecodeError:
        raise HeadwaterError(
            f"the service answered {answer.status_code} without a problem document"
        ) from None
    error_type = getattr(errors, problem.code, HeadwaterError)
    raise error_type(problem.detail or problem.title, problem.hint)


def _unreachable(failure: Exception | None) -> StorageError:
    return StorageError(
        f"the service cannot be reached: {failure or 'it is busy'}",
        hint="start it, or check the address: headwater serve",
    )
