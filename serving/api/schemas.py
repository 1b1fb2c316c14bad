"""What goes over the wire: requests and answers, as JSON."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from headwater.features.record.checks import check_entity
from headwater.spec.data.records import LabelValue, Output, Role, Source
from headwater.spec.data.values import check_name
from headwater.spec.pipeline import Task

__all__ = [
    "MOST_ITEMS",
    "NO_FEATURES",
    "BatchAnswer",
    "BatchItem",
    "Entity",
    "LabelItem",
    "LabelRequest",
    "LabelResult",
    "LabelResults",
    "PredictItem",
    "PredictRequest",
    "PredictionAnswer",
    "PredictionAnswers",
    "answer_of",
    "check_names",
]

MOST_ITEMS = 1_000
"""How many predictions or labels one request may hold."""

NO_FEATURES = msgspec.Raw(b"{}")
"""What stands for features that are not sent, where all are looked up."""

Id = Annotated[str, Meta(min_length=1, max_length=200)]
Entity = Annotated[dict[Id, Id], Meta(max_length=20)]


class PredictItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One prediction that is asked for.

    Parameters
    ----------
    features
        Values by name, as the pipeline declares them; left out where all are looked up.
    id
        The client's own; the service makes one where there is none. The same id with the same features
        gets the same answer, so that a request may be sent again.
    entity
        Entity keys by name, by which batch features are looked up.
    unit
        Whose traffic it is, for routing that sticks; the id where there is none.
    """

    features: msgspec.Raw = NO_FEATURES
    id: Id | UnsetType = UNSET
    entity: Entity = {}
    unit: Id | UnsetType = UNSET


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One prediction, or many in `predictions`.

    Parameters
    ----------
    pipeline
        Which one; may be left out where the service has only one.
    predictions
        Many; the other fields are left out then.
    features, id, entity, unit
        One; as in :class:`PredictItem`.
    """

    pipeline: Id | UnsetType = UNSET
    features: msgspec.Raw | UnsetType = UNSET
    id: Id | UnsetType = UNSET
    entity: Entity = {}
    unit: Id | UnsetType = UNSET
    predictions: Annotated[list[PredictItem], Meta(min_length=1, max_length=MOST_ITEMS)] | UnsetType = (
        UNSET
    )


class PredictionAnswer(msgspec.Struct, gc=False):
    """One prediction.

    Parameters
    ----------
    id
        Under which it was logged, and its label is awaited.
    output
        Probability of the positive class, the regressed value, or the likeliest class.
    version, role
        Which version answered, as what.
    probabilities
        By class, where the task has classes.
    loss_window_ms
        How long the record may be lost with the power, where the pipeline chose
        ``durability="batch"``.
    """

    id: str
    output: float | str
    version: str
    role: Role
    probabilities: dict[str, float] | UnsetType = UNSET
    loss_window_ms: int | UnsetType = UNSET


class PredictionAnswers(msgspec.Struct, gc=False):
    """Many predictions, in the order in which they were asked for."""

    predictions: list[PredictionAnswer]


def answer_of(
    task: Task,
    id_: str,
    output: Output,
    version: str,
    role: Role,
    loss_window_ms: int | UnsetType = UNSET,
) -> PredictionAnswer:
    """Say what a version answered, with a probability by class where the task has classes.

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
    """Check what a client calls a prediction, whose it is, and by what its features are looked up.

    Parameters
    ----------
    item
        What is asked for.
    where
        Its place among many, for errors.

    Raises
    ------
    SchemaError
        If one is no name, such as an id with a control character; the text names the field.
    """
    if item.id is not UNSET:
        check_name(item.id, f"{where}id")
    if item.unit is not UNSET:
        check_name(item.unit, f"{where}unit")
    if item.entity:
        check_entity(item.entity, where)


class BatchItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What the online model needs where the batch has no answer for a key.

    Parameters
    ----------
    features, id, unit
        As in :class:`PredictItem`; the entity key is that of the path.
    """

    features: msgspec.Raw
    id: Id | UnsetType = UNSET
    unit: Id | UnsetType = UNSET


class BatchAnswer(msgspec.Struct, gc=False):
    """The answer for a key.

    Parameters
    ----------
    key
        Whose.
    found
        ``"batch"`` was computed before, ``"online"`` just now.
    id, output, version, role, probabilities, loss_window_ms
        As in :class:`PredictionAnswer`.
    predicted_at, age_s
        When it was predicted, and how many seconds ago that was.
    run
        Which batch run has it.
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
    """The truth for one prediction.

    Parameters
    ----------
    prediction_id
        Whose truth.
    value
        true or false, a class, or a number, as the pipeline's task has it.
    known_at
        When it became known, with a zone; now where not given.
    source
        Who says so.
    key
        The client's key: the same key again must bear the same value.
    """

    prediction_id: Id
    value: LabelValue
    known_at: datetime | UnsetType = UNSET
    source: Source = "natural"
    key: Id | UnsetType = UNSET


class LabelRequest(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One label, or many in `labels`.

    Parameters
    ----------
    pipeline
        Which one; may be left out where the service has only one.
    labels
        Many; the other fields are left out then. Each is checked as it comes, and has its own result.
    prediction_id, value, known_at, source, key
        One; as in :class:`LabelItem`.
    """

    pipeline: Id | UnsetType = UNSET
    labels: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MOST_ITEMS)] | UnsetType = UNSET
    prediction_id: Id | UnsetType = UNSET
    value: LabelValue | UnsetType = UNSET
    known_at: datetime | UnsetType = UNSET
    source: Source = "natural"
    key: Id | UnsetType = UNSET


class LabelResult(msgspec.Struct, omit_defaults=True, gc=False):
    """What became of one label.

    Parameters
    ----------
    prediction_id
        Whose truth; ``""`` where the item could not be read.
    status
        ``"recorded"`` is durable, ``"known"`` came before and is durable, ``"conflict"`` came before
        with another value under the same key, ``"refused"`` does not fit.
    detail, hint
        What is wrong with a conflict or a refused one, and what to do.
    """

    prediction_id: str
    status: Literal["recorded", "known", "conflict", "refused"]
    detail: str = ""
    hint: str = ""


class LabelResults(msgspec.Struct, gc=False):
    """What became of many labels, in their order."""

    labels: list[LabelResult]
