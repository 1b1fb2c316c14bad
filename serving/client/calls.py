"""Build the requests of both clients: operation, path, body, and the type of the answer.

Every prediction gets its id, and every label its key, here, before the first attempt.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import msgspec

from headwater.infra.ids import new_id
from headwater.serving.api import operations
from headwater.serving.api.operation import Operation
from headwater.serving.api.operator_schemas import (
    ChampionBody,
    LearningBody,
    NameClassBody,
    OffsetSpan,
    QuarantineBody,
    RoutingBody,
    ShadowBody,
)
from headwater.serving.api.queue_schemas import AnswerResult, ClaimAnswer, SkipResult
from headwater.serving.api.schemas import (
    BatchAnswer,
    LabelResult,
    LabelResults,
    PredictionAnswer,
    PredictionAnswers,
)
from headwater.serving.client.sent import encoded
from headwater.spec.data.records import FeatureValue, LabelValue, Recorded, Source, utc
from headwater.spec.data.values import check_name
from headwater.spec.errors import NotFoundError, SchemaError
from headwater.spec.recipe import OffsetRange
from headwater.spec.rulings import AppearedClass, Learning, Reign, RoutingStatus, VersionInRole
from headwater.spec.serving.batch import LONGEST_KEY
from headwater.spec.serving.queue_results import KnownClass, QueueStatistics
from headwater.spec.serving.routing import Routing

__all__ = [
    "REASON",
    "Call",
    "Features",
    "add_shadow",
    "answer",
    "batch",
    "claim",
    "classes",
    "drop_shadow",
    "label",
    "learn",
    "learning",
    "name_class",
    "new_classes",
    "predict",
    "prediction",
    "previous",
    "promote",
    "quarantine",
    "queue",
    "roll_back",
    "route",
    "routing",
    "send_labels",
    "send_predictions",
    "skip",
    "unnamed",
    "versions",
]

REASON = "through the client"
"""The reason of a ruling, if none is given."""

Features = Mapping[str, FeatureValue]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Call(Generic[Found]):
    """A request: method, path and body as sent, and the type of its answer."""

    operation: Operation[Any, Any]
    path: str
    kind: type[Found]
    body: bytes | None = None
    params: Mapping[str, str] | None = None


def _call(
    operation: Operation[Any, Any],
    kind: type[Found],
    body: Mapping[str, Any] | msgspec.Struct | None = None,
    params: Mapping[str, str] | None = None,
    **parts: str,
) -> Call[Found]:
    path = operation.path.replace(":any", "")
    try:
        for name, text in parts.items():
            path = path.replace(f"{{{name}}}", _quoted(text))
        if isinstance(body, msgspec.Struct):
            return Call(operation, path, kind, msgspec.json.encode(body), params)
    except UnicodeEncodeError as error:
        raise SchemaError(
            f"the request cannot be written: {error}", hint="take half a surrogate pair out of the text"
        ) from error
    return Call(operation, path, kind, None if body is None else encoded(body), params)


def _quoted(text: str) -> str:
    """Quote a part of a path: its slashes, and the parts "." and "..", which mean a folder."""
    return "%2E" * len(text) if text in (".", "..") else quote(text, safe="")


def predict(
    features: Features,
    pipeline: str | None,
    id_: str | None,
    entity: Mapping[str, str] | None,
    due_at: datetime | None,
) -> Call[PredictionAnswer]:
    """Build the request for one prediction."""
    item = _item(features, id_, entity)
    if due_at is not None:
        item["due_at"] = utc(due_at, "due_at")
    return _call(operations.PREDICT, PredictionAnswer, _named(item, pipeline))


def unnamed(items: Sequence[Features]) -> list[dict[str, Any]]:
    """Build items of features, each with a new id."""
    return [_item(features) for features in items]


def send_predictions(
    items: Sequence[Mapping[str, Any]], pipeline: str | None
) -> Call[PredictionAnswers]:
    """Build the request for many predictions."""
    return _call(operations.PREDICT, PredictionAnswers, _named({"predictions": items}, pipeline))


def label(
    prediction_id: str,
    value: LabelValue,
    pipeline: str | None,
    known_at: datetime | None,
    source: Source,
    key: str | None,
) -> Call[LabelResult]:
    """Build the request with one label."""
    item: dict[str, Any] = {
        "prediction_id": prediction_id,
        "value": value,
        "source": source,
    }
    if known_at is not None:
        item["known_at"] = known_at
    if key is not None:
        item["key"] = key
    return _call(operations.LABEL, LabelResult, _named(_keyed(item), pipeline))


def send_labels(items: Sequence[Mapping[str, Any]], pipeline: str | None) -> Call[LabelResults]:
    """Build the request with many labels."""
    labels = [_keyed(item) for item in items]
    return _call(operations.LABEL, LabelResults, _named({"labels": labels}, pipeline))


def prediction(prediction_id: str, pipeline: str | None) -> Call[Recorded]:
    """Build the request for a record."""
    check_name(prediction_id, "prediction_id")
    params = {} if pipeline is None else {"pipeline": pipeline}
    return _call(operations.PREDICTION, Recorded, None, params, prediction_id=prediction_id)


def batch(key: str, pipeline: str, features: Features | None, id_: str | None) -> Call[BatchAnswer]:
    """Build the request for a batch answer; with features, for one that may be predicted."""
    check_name(key, "key", LONGEST_KEY)
    if features is None:
        return _call(operations.BATCH_ANSWER, BatchAnswer, pipeline=pipeline, key=key)
    item = _item(features, id_)
    return _call(operations.BATCH_PREDICT, BatchAnswer, item, pipeline=pipeline, key=key)


def queue(pipeline: str) -> Call[QueueStatistics]:
    """Build the request for a queue's state."""
    return _call(operations.QUEUE, QueueStatistics, pipeline=pipeline)


def classes(pipeline: str) -> Call[list[KnownClass]]:
    """Build the request for the classes that people may answer with."""
    return _call(operations.CLASSES, list[KnownClass], pipeline=pipeline)


def claim(pipeline: str, person: str, many: int, lease_s: int | None) -> Call[ClaimAnswer]:
    """Build the request for questions."""
    body = {"person": person, "many": many, "lease_s": lease_s}
    return _call(operations.CLAIM, ClaimAnswer, body, pipeline=pipeline)


def answer(pipeline: str, person: str, prediction_id: str, value: LabelValue) -> Call[AnswerResult]:
    """Build the request with a person's answer."""
    body = {"person": person, "prediction_id": prediction_id, "value": value}
    return _call(operations.ANSWER, AnswerResult, body, pipeline=pipeline)


def skip(pipeline: str, person: str, prediction_id: str) -> Call[SkipResult]:
    """Build the request that skips a question."""
    body = {"person": person, "prediction_id": prediction_id}
    return _call(operations.SKIP, SkipResult, body, pipeline=pipeline)


def routing(pipeline: str) -> Call[RoutingStatus]:
    """Build the request for the routing."""
    return _call(operations.ROUTING, RoutingStatus, pipeline=pipeline)


def route(
    pipeline: str, routing: Routing | None, reason: str, expected: int | None
) -> Call[RoutingStatus]:
    """Build the request that sets a routing."""
    body = RoutingBody(routing=routing, reason=reason, expected=expected)
    return _call(operations.ROUTE, RoutingStatus, body, pipeline=pipeline)


def add_shadow(pipeline: str, version: str, reason: str) -> Call[RoutingStatus]:
    """Build the request that adds a shadow."""
    body = ShadowBody(version=version, reason=reason)
    return _call(operations.ADD_SHADOW, RoutingStatus, body, pipeline=pipeline)


def drop_shadow(pipeline: str, version: str, reason: str) -> Call[RoutingStatus]:
    """Build the request that drops a shadow."""
    body = ShadowBody(version=version, reason=reason)
    return _call(operations.DROP_SHADOW, RoutingStatus, body, pipeline=pipeline)


def learning(pipeline: str) -> Call[Learning]:
    """Build the request for the state of learning."""
    return _call(operations.LEARNING, Learning, pipeline=pipeline)


def learn(pipeline: str, reason: str, *, paused: bool) -> Call[Learning]:
    """Build the request that pauses learning, or resumes it."""
    body = LearningBody(paused=paused, reason=reason)
    return _call(operations.LEARN, Learning, body, pipeline=pipeline)


def quarantine(pipeline: str, spans: Iterable[OffsetRange], reason: str) -> Call[Learning]:
    """Build the request that quarantines offsets."""
    body = QuarantineBody(spans=_spans(spans), reason=reason)
    return _call(operations.QUARANTINE, Learning, body, pipeline=pipeline)


def new_classes(pipeline: str) -> Call[list[AppearedClass]]:
    """Build the request for the classes of labels that were not declared."""
    return _call(operations.NEW_CLASSES, list[AppearedClass], pipeline=pipeline)


def name_class(pipeline: str, name: str, becomes: str | None, reason: str) -> Call[list[AppearedClass]]:
    """Build the request that says what a new class is."""
    body = NameClassBody(name=name, becomes=becomes, reason=reason)
    return _call(operations.NAME_CLASS, list[AppearedClass], body, pipeline=pipeline)


def promote(pipeline: str, version: str, reason: str) -> Call[Reign]:
    """Build the request that makes a version champion."""
    body = ChampionBody(version=version, reason=reason)
    return _call(operations.CHAMPION, Reign, body, pipeline=pipeline)


def roll_back(
    pipeline: str, version: str, spans: Iterable[OffsetRange] | Literal["learned"], reason: str
) -> Call[Reign]:
    """Build the request that makes an earlier version champion; it names it, and so may be repeated."""
    quarantine = spans if isinstance(spans, str) else _spans(spans)
    body = ChampionBody(version=version, rollback=True, quarantine=quarantine, reason=reason)
    return _call(operations.CHAMPION, Reign, body, pipeline=pipeline)


def versions(pipeline: str, last: int) -> Call[list[VersionInRole]]:
    """Build the request for the newest versions."""
    params = {"last": str(last)}
    return _call(operations.VERSIONS, list[VersionInRole], None, params, pipeline=pipeline)


def previous(newest_versions: Iterable[VersionInRole]) -> str:
    """Return the number of the champion before this one.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    for version in newest_versions:
        if "previous" in version.roles:
            return version.number
    raise NotFoundError("there is no earlier champion", hint="name a version to return to")


def _item(
    features: Features, id_: str | None = None, entity: Mapping[str, str] | None = None
) -> dict[str, Any]:
    item: dict[str, Any] = {"id": new_id() if id_ is None else id_, "features": features}
    return {**item, "entity": entity} if entity else item


def _keyed(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a label that is the same one when it is sent again: with a time, or a key."""
    return item if "known_at" in item or "key" in item else {**item, "key": new_id()}


def _named(body: Mapping[str, Any], pipeline: str | None) -> dict[str, Any]:
    return dict(body) if pipeline is None else {"pipeline": pipeline, **body}


def _spans(spans: Iterable[OffsetRange]) -> tuple[OffsetSpan, ...]:
    return tuple(OffsetSpan(start=span.start, stop=span.stop) for span in spans)
