"""Schemas of the JSON requests and answers of the service."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from headwater.features.record.checks import check_entity
from headwater.spec.data.records import Output, Role, Source
from headwater.spec.data.values import check_name
from headwater.spec.pipeline import Task

__all__ = [
    "MOST_ITEMS",
    "NO_FEATURES",
    "BatchAnswer",
    "BatchItem",
    "DueAt",
    "Entity",
    "LabelItem",
    "LabelRequest",
    "LabelResult",
    "LabelResults",
    "PredictItem",
    "PredictRequest",
    "PredictionAnswer",
    "PredictionAnswers",
    "PredictionQuery",
    "answer_of",
    "check_names",
]

MOST_ITEMS = 1_000
"""The largest number of predictions or labels in a request."""

NO_FEATURES = msgspec.Raw(b"{}")
"""The features of a request that sends none, since all are looked up."""

SentLabel = bool | str | int | float
"""A label as JSON has it: a whole number is not rounded before it is checked."""

Id = Annotated[str, Meta(min_length=1, max_length=200)]
DueAt = Annotated[datetime, Meta(tz=True)] | None | UnsetType
Entity = Annotated[dict[Id, Id], Meta(max_length=20)]


class PredictItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A request for one prediction.

    Parameters
    ----------
    features
        Values by name, as the pipeline declares them; left out if all are looked up.
    id
        The client's id; without it, that of a header ``Idempotency-Key``, or one that the service makes.
        The same id with the same features gets the same answer, so that a request may be sent again.
    entity
        Entity keys by name, by which batch features are looked up.
    unit
        The user or session that a sticky routing follows; the id if there is none.
    due_at
        When the label is due, with a zone, for a label rule with ``due="due_at"``.
    """

    features: msgspec.Raw = NO_FEATURES
    id: Id | UnsetType = UNSET
    entity: Entity = {}
    unit: Id | UnsetType = UNSET
    due_at: DueAt = UNSET


class PredictionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The pipeline's name; may be left out if the service has only one."""

    pipeline: Id | UnsetType = UNSET


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A request for one prediction, or for many in `predictions`.

    Parameters
    ----------
    pipeline
        The pipeline's name; may be left out if the service has only one.
    predictions
        Many items; the other fields are left out then.
    features, id, entity, unit, due_at
        One item, as in :class:`PredictItem`.
    """

    pipeline: Id | UnsetType = UNSET
    features: msgspec.Raw | UnsetType = UNSET
    id: Id | UnsetType = UNSET
    entity: Entity = {}
    unit: Id | UnsetType = UNSET
    due_at: DueAt = UNSET
    predictions: Annotated[list[PredictItem], Meta(min_length=1, max_length=MOST_ITEMS)] | UnsetType = (
        UNSET
    )


class PredictionAnswer(msgspec.Struct, gc=False):
    """The answer to one prediction.

    Parameters
    ----------
    id
        The id under which it was logged, and by which its label names it.
    output
        Probability of the positive class, the regressed value, or the likeliest class.
    version, role
        The version that answered, and its role.
    probabilities
        Probability by class, if the task has classes.
    loss_window_ms
        How long the record may still be lost with the power, if the pipeline declares
        ``durability="batch"``.
    """

    id: str
    output: float | str
    version: str
    role: Role
    probabilities: dict[str, float] | UnsetType = UNSET
    loss_window_ms: int | UnsetType = UNSET


class PredictionAnswers(msgspec.Struct, gc=False):
    """The answers to many predictions, in the order of the request."""

    predictions: list[PredictionAnswer]


def answer_of(
    task: Task,
    id_: str,
    output: Output,
    version: str,
    role: Role,
    loss_window_ms: int | UnsetType = UNSET,
) -> PredictionAnswer:
    """Build the answer of a version, with a probability by class if the task has classes.

    >>> answer_of("binary", "p-1", 0.25, "3", "champion").probabilities
    {'false': 0.75, 'true': 0.25}
    """
    if isinstance(output, dict):
        likeliest = max(output, key=output.__getitem__) if output else ""
        return PredictionAnswer(id_, likeliest, version, role, output, loss_window_ms)
    if task == "binary":
        shares = {"false": 1.0 - output, "true": output}
        return PredictionAnswer(id_, output, version, role, shares, loss_window_ms)
    return PredictionAnswer(id_, output, version, role, UNSET, loss_window_ms)


def check_names(item: PredictItem, where: str) -> None:
    """Check the id, the unit and the entity keys of a request.

    Parameters
    ----------
    item
        The request.
    where
        Its place among many, for errors.

    Raises
    ------
    SchemaError
        If one of them is not a valid name, such as an id with a control character; the text names the
        field.
    """
    if item.id is not UNSET:
        check_name(item.id, f"{where}id")
    if item.unit is not UNSET:
        check_name(item.unit, f"{where}unit")
    if item.entity:
        check_entity(item.entity, where)


class BatchItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A request to the online model for a key that the batch has no answer for.

    Parameters
    ----------
    features, id, unit, due_at
        As in :class:`PredictItem`; the entity key is that of the path.
    """

    features: msgspec.Raw
    id: Id | UnsetType = UNSET
    unit: Id | UnsetType = UNSET
    due_at: DueAt = UNSET


class BatchAnswer(msgspec.Struct, gc=False):
    """The answer to a look-up by key.

    Parameters
    ----------
    key
        The key.
    found
        ``"batch"`` if it was computed before, ``"online"`` if just now.
    id, output, version, role, probabilities, loss_window_ms
        As in :class:`PredictionAnswer`.
    predicted_at, age_s
        When it was predicted, and how many seconds ago that was.
    run
        Id of the batch run that computed it.
    """

    key: str
    found: Literal["batch", "online"]
    id: str
    output: float | str
    version: str
    role: Role
    predicted_at: datetime
    age_s: float
    run: str | UnsetType = UNSET
    probabilities: dict[str, float] | UnsetType = UNSET
    loss_window_ms: int | UnsetType = UNSET


class LabelItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The label of one prediction.

    Parameters
    ----------
    prediction_id
        Id of the prediction.
    value
        true or false, a class, or a number, as the pipeline's task has it.
    known_at
        When it became known, with a zone; on receipt if not given.
    source
        Where it comes from; ``"timeout"`` is headwater's own, and refused.
    key
        The client's key: the same key again must bear the same value. With neither this, `known_at` nor
        a header ``Idempotency-Key``, a label like the last one of its source is a repetition.
    """

    prediction_id: Id
    value: SentLabel
    known_at: Annotated[datetime, Meta(tz=True)] | UnsetType = UNSET
    source: Source = "natural"
    key: Id | UnsetType = UNSET


class LabelRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One label, or many in `labels`.

    Parameters
    ----------
    pipeline
        The pipeline's name; may be left out if the service has only one.
    labels
        Many items; the other fields are left out then. Each is checked alone, and has its own result.
    prediction_id, value, known_at, source, key
        One item, as in :class:`LabelItem`.
    """

    pipeline: Id | UnsetType = UNSET
    labels: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MOST_ITEMS)] | UnsetType = UNSET
    prediction_id: Id | UnsetType = UNSET
    value: SentLabel | UnsetType = UNSET
    known_at: Annotated[datetime, Meta(tz=True)] | UnsetType = UNSET
    source: Source = "natural"
    key: Id | UnsetType = UNSET


class LabelResult(msgspec.Struct, omit_defaults=True, gc=False):
    """The result of one label.

    Parameters
    ----------
    prediction_id
        Id of the prediction; ``""`` if the item could not be read.
    status
        ``"recorded"`` is durable, ``"known"`` came before and is durable, ``"conflict"`` came before
        with another value under the same key, ``"refused"`` does not fit.
    detail, hint
        The fault of a label that is in conflict or refused, and the next step.
    """

    prediction_id: str
    status: Literal["recorded", "known", "conflict", "refused"]
    detail: str = ""
    hint: str = ""


class LabelResults(msgspec.Struct, gc=False):
    """The results of many labels, in the order of the request."""

    labels: list[LabelResult]
