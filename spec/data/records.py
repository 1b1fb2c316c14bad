"""The records: a prediction and its label. All times are UTC instants."""

from datetime import UTC, datetime
from typing import Literal

import msgspec

from headwater.spec.data.scalars import plain
from headwater.spec.data.values import check_name
from headwater.spec.errors import SchemaError

__all__ = [
    "FeatureValue",
    "Label",
    "LabelValue",
    "Output",
    "Prediction",
    "ReceivedLabel",
    "Recorded",
    "Role",
    "Source",
    "utc",
]

FeatureValue = str | int | float | bool | None
"""What a model sees under one name; None where nothing was known."""

LabelValue = bool | str | float
"""The truth: bool for a binary task, str for a multiclass one, float for a regression."""

Output = float | dict[str, float]
"""Probability of the positive class, or the regressed value; for multiclass, a probability by class."""

Role = Literal["champion", "challenger", "shadow", "imported"]
Source = Literal["natural", "human", "timeout"]


def utc(moment: datetime, field: str) -> datetime:
    """Turn an aware time into UTC.

    Raises
    ------
    SchemaError
        If `moment` is not a time, or a naive one.
    """
    if type(moment) is datetime and moment.tzinfo is UTC:
        return moment  # nearly every one: this is called several times a record
    moment = plain(moment)
    offset = moment.utcoffset() if isinstance(moment, datetime) else None
    if offset is None:
        raise SchemaError(
            f"{field}={moment!r} is not a time with a zone",
            hint="write datetime(2013, 1, 1, tzinfo=UTC), say",
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise SchemaError(
            f"{field}={moment.isoformat()} is no time in UTC",
            hint="send a time between the years 1 and 9999",
        ) from error


class Prediction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A served output, with the features that it was made from.

    Parameters
    ----------
    id
        The client's id or a UUIDv7; unique within the pipeline.
    features
        Features as served, by name.
    output
        What the version answered.
    served_at
        When it was served, with a zone.
    version
        The version that answered; ``""`` for imported history that had none.
    role
        In which role it answered.
    propensity
        Probability with which the router chose this version, in (0, 1].
    entity
        Entity keys by name, such as ``{"customer": "c-17"}``.
    ages_s
        How old the values were that were looked up, in seconds, by table; a table that did not know the
        entity keys is not in it.
    due_at
        When its truth is due, with a zone, for a label rule with ``due="due_at"``; None if nobody told.
    """

    id: str
    features: dict[str, FeatureValue]
    output: Output
    served_at: datetime
    version: str = ""
    role: Role = "champion"
    propensity: float = 1.0
    entity: dict[str, str] = {}
    ages_s: dict[str, float] = {}
    due_at: datetime | None = None

    def __post_init__(self) -> None:
        check_name(self.id, "id")
        utc(self.served_at, "served_at")
        if self.due_at is not None:
            utc(self.due_at, "due_at")
        if not isinstance(self.propensity, float | int) or not 0.0 < self.propensity <= 1.0:
            raise SchemaError(
                f"propensity={self.propensity!r} of prediction {self.id!r} is not in (0, 1]",
                hint="write 1.0 if no router chose",
            )


class Label(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The truth for one prediction.

    Parameters
    ----------
    prediction_id
        Whose truth it is.
    value
        The truth.
    known_at
        When it became known, with a zone; it counts at most as the time of receipt.
    source
        Who says so; ``"timeout"`` is headwater's own.
    key
        The client's key: the same key again must carry the same value. None makes the key of the
        value and the time, so that a repeated label is one and a changed one is a revision.
    by
        Whose key or name the label came under; ``""`` if nobody asked.
    """

    prediction_id: str
    value: LabelValue
    known_at: datetime
    source: Source = "natural"
    key: str | None = None
    by: str = ""

    def __post_init__(self) -> None:
        check_name(self.prediction_id, "prediction_id")
        utc(self.known_at, "known_at")
        if self.key is not None:
            check_name(self.key, "key")
        if self.by:
            check_name(self.by, "by")


class ReceivedLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A label with its time of receipt.

    Parameters
    ----------
    label
        The truth, who says so, and under which key.
    received_at
        When it came.
    """

    label: Label
    received_at: datetime


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """The records that an inbox holds of one prediction.

    Parameters
    ----------
    prediction
        As served; None if only labels came.
    labels
        In the order in which they came.
    """

    prediction: Prediction | None
    labels: tuple[ReceivedLabel, ...]
