"""Talk to the service: predict, label, look up. Needs nothing of the server.

Every prediction gets its id, and every label its time, before it is sent: a request that is sent again
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
_Found = TypeVar("_Found")
Features = Mapping[str, FeatureValue]


class _Base:
    """What both clients share: which request is sent, and what an answer means."""

    def __init__(self, retries: int, key: str | None) -> None:
        self._retries = retries
        self._headers = {"content-type": "application/json"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"

    def _pause_s(self, attempt: int, answer: httpx.Response | None) -> float | None:
        """Say how long to wait before another attempt; None where there is none."""
        if attempt >= self._retries or (answer is not None and answer.status_code not in _RETRIED):
            return None
        asked = "" if answer is None else answer.headers.get("retry-after", "")
        if asked.isdigit():
            return min(float(asked), _MOST_WAIT_S)
        longest = min(_MOST_WAIT_S, _FIRST_WAIT_S * 2**attempt)
        return float(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads clients, hides nothing


class Client(_Base):
    """A client that waits for each answer.

    Parameters
    ----------
    address
        Such as ``http://127.0.0.1:8000``.
    key
        The API key, where the service asks for one.
    retries
        How often a request that got no answer, or was told to come back, is sent again.
    timeout_s
        How long to wait for an answer.
    """

    def __init__(
        self, address: str, *, key: str | None = None, retries: int = 8, timeout_s: float = 10.0
    ) -> None:
        super().__init__(retries, key)
        self._http = httpx.Client(base_url=address, headers=self._headers, timeout=timeout_s)
        self.operate = OperatorClient(self._send)
        """What operators ask for: routing, shadows, learning, champions."""

    def predict(
        self,
        features: Features,
        *,
        pipeline: str | None = None,
        id: str | None = None,  # noqa: A002 - its name on the wire
        entity: Mapping[str, str] | None = None,
    ) -> PredictionAnswer:
        """Ask for one prediction; it is logged durably when this returns.

        Parameters
        ----------
        features
            Values by name.
        pipeline
            Its name; may be left out where only one is served.
        id
            Unique within the pipeline; made where not given.
        entity
            Entity keys by name.

        Raises
        ------
        SchemaError, ConflictError, NotFoundError, NotReadyError, StorageError
            As the service says; StorageError also where it cannot be reached.
        """
        return self._post("/predict", _prediction(features, pipeline, id, entity), PredictionAnswer)

    def predict_many(
        self, items: Sequence[Features], *, pipeline: str | None = None
    ) -> list[PredictionAnswer]:
        """Ask for many predictions, all or none; each gets an id.

        Raises
        ------
        HeadwaterError
            As for :meth:`predict`.
        """
        return self.send_predictions([_item(features) for features in items], pipeline=pipeline)

    def send_predictions(
        self, items: Sequence[Mapping[str, Any]], *, pipeline: str | None = None
    ) -> list[PredictionAnswer]:
        """Ask for many predictions as they go over the wire: ``id``, ``features``, ``entity``, ``unit``.

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
        """Tell the truth of one prediction; durable when this returns.

        Parameters
        ----------
        prediction_id, value
            Whose truth, and what it is.
        known_at
            When it became known, with a zone; now where not given.
        source
            Who says so.
        key
            The same key again must bear the same value; a revision bears another.

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
        """Tell many truths as they go over the wire, each with its own result.

        Raises
        ------
        HeadwaterError
            As for :meth:`predict`.
        """
        return self._post("/labels", _named({"labels": items}, pipeline), LabelResults).labels

    def prediction(self, prediction_id: str, *, pipeline: str | None = None) -> Recorded:
        """Give what was recorded of a prediction.

        Raises
        ------
        NotFoundError
            If nothing was.
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
        """Give what the newest batch run predicted for a key.

        Parameters
        ----------
        key, pipeline
            Whose answer, and the pipeline's name.
        features
            Values by name, with which the online model answers where the batch has none; without, that
            is an error.
        id
            Of the prediction that is made then; made where not given.

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
        """Say whether every pipeline has a version that serves; False where nobody answers."""
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

    def _post(self, path: str, body: Mapping[str, Any], kind: type[_Found]) -> _Found:
        return self._send("POST", path, encoded(body), kind)

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        kind: type[_Found],
        params: Mapping[str, str] | None = None,
    ) -> _Found:
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


class AsyncClient(_Base):
    """A client for an event loop; many requests may be under way at once.

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
        """What operators ask for, as :attr:`Client.operate`."""

    async def predict(
        self,
        features: Features,
        *,
        pipeline: str | None = None,
        id: str | None = None,  # noqa: A002 - its name on the wire
        entity: Mapping[str, str] | None = None,
    ) -> PredictionAnswer:
        """Ask for one prediction, as :meth:`Client.predict` does."""
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
        """Tell the truth of one prediction, as :meth:`Client.label` does."""
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
        """Give what the newest batch run predicted for a key, as :meth:`Client.batch` does."""
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

    async def _post(self, path: str, body: Mapping[str, Any], kind: type[_Found]) -> _Found:
        return await self._send("POST", path, encoded(body), kind)

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        kind: type[_Found],
        params: Mapping[str, str] | None = None,
    ) -> _Found:
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
    """Let the service's spans go on from the caller's, where the caller has any (W3C trace context)."""
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
    found: dict[str, Any] = {"id": id_ or new_id(), "features": features}
    return {**found, "entity": entity} if entity else found


def _prediction(
    features: Features, pipeline: str | None, id_: str | None, entity: Mapping[str, str] | None
) -> dict[str, Any]:
    return _named(_item(features, id_, entity), pipeline)


def _label(
    prediction_id: str, value: LabelValue, known_at: datetime | None, source: Source, key: str | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "prediction_id": prediction_id,
        "value": value,
        "known_at": known_at or datetime.now(UTC),
        "source": source,
    }
    return found if key is None else {**found, "key": key}


def _named(body: Mapping[str, Any], pipeline: str | None) -> dict[str, Any]:
    return dict(body) if pipeline is None else {"pipeline": pipeline, **body}


def _read(answer: httpx.Response, kind: type[_Found]) -> _Found:
    if answer.is_success:
        return msgspec.json.decode(answer.content, type=kind)
    try:
        problem = msgspec.json.decode(answer.content, type=Problem)
    except msgspec.DecodeError:
        raise HeadwaterError(f"the service answered {answer.status_code}, and no problem") from None
    known = getattr(errors, problem.code, HeadwaterError)
    raise known(problem.detail or problem.title, problem.hint)


def _unreachable(failure: Exception | None) -> StorageError:
    return StorageError(
        f"the service cannot be reached: {failure or 'it is busy'}",
        hint="start it, or check the address: headwater serve",
    )
