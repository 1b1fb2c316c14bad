"""The encoder of predictions and labels: checks and entries, all that a worker needs to record."""

from collections.abc import Iterable
from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from headwater.features.record.checks import Checks
from headwater.features.record.entries import LABEL, PREDICTION, Entry, label_key
from headwater.features.record.inbox import Inbox, inbox_file
from headwater.infra.clock import Clock, from_us, to_us
from headwater.infra.settings import Settings
from headwater.spec.data.feature import Dtype, python_type
from headwater.spec.data.lossless import fitted
from headwater.spec.data.records import (
    FeatureValue,
    Label,
    LabelValue,
    Output,
    Prediction,
    ReceivedLabel,
    Recorded,
    Role,
    Source,
)
from headwater.spec.data.records import utc as in_utc
from headwater.spec.data.scalars import plain, plain_items, plain_output
from headwater.spec.declaration import declaration_of
from headwater.spec.errors import HeadwaterError, SchemaError
from headwater.spec.pipeline import Pipeline, Task

__all__ = ["RecordEncoder", "open_inbox"]

_LABELS: dict[Task, Dtype] = {"binary": "bool", "multiclass": "str", "regression": "float"}
_ENCODER = msgspec.json.Encoder(order="deterministic")


class _LoggedPrediction(msgspec.Struct, gc=False):
    """A prediction as it is stored; defaults of :class:`Prediction` are left out."""

    id: str
    features: msgspec.Struct
    output: Output
    served_at: datetime
    version: str | UnsetType
    role: Role | UnsetType
    propensity: float | UnsetType
    entity: dict[str, str] | UnsetType
    ages_s: dict[str, float] | UnsetType
    due_at: datetime | UnsetType


class _LoggedLabel(msgspec.Struct, gc=False):
    """A label as it is stored; defaults of :class:`Label` are left out."""

    prediction_id: str
    value: LabelValue
    known_at: datetime
    source: Source | UnsetType
    key: str | UnsetType
    by: str | UnsetType
    on_receipt: bool | UnsetType


class _StoredPrediction(msgspec.Struct, gc=False):
    """A stored prediction, read back."""

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


_STORED_PREDICTION = msgspec.json.Decoder(_StoredPrediction)
_STORED_LABEL = msgspec.json.Decoder(Label)


def open_inbox(pipeline: Pipeline, settings: Settings) -> Inbox:
    """Open the inbox of a pipeline, below the home folder.

    Raises
    ------
    StorageError
        If the file cannot be opened.
    IntegrityError
        If it has lost records that were acknowledged.
    """
    inbox = Inbox(inbox_file(pipeline.name, settings))
    try:
        inbox.check_end()
    except HeadwaterError:
        inbox.close()
        raise
    return inbox


class RecordEncoder:
    """The encoder that checks records and makes the entries of the inbox.

    Parameters
    ----------
    pipeline
        Whose schema the records must fit.
    inbox
        Where they go.
    clock
        Gives the time of receipt.

    Attributes
    ----------
    receipts
        The clock, which refuses a time that cannot be.
    """

    def __init__(self, pipeline: Pipeline, inbox: Inbox, clock: Clock) -> None:
        self.pipeline = pipeline
        self.inbox = inbox
        self.receipts = inbox.receipt_clock(clock)
        self._checks = Checks(pipeline)
        self._request = self._checks.request
        self._fit, self._decode = self._request.fit, msgspec.json.Decoder(self._request.type).decode
        self._label_dtype = _LABELS[pipeline.task]
        self._label_type = python_type(self._label_dtype)
        self._declaration = declaration_of(pipeline)
        self._hash, self._declared = self._declaration.hash, False

    def declare(self) -> None:
        """Keep in the inbox what is recorded under; called before the first record.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        if not self._declared:
            self.inbox.declare(self._hash, self._declaration.as_recorded.to_json())
            self._declared = True

    @property
    def logged_type(self) -> type[msgspec.Struct]:
        """The type of all features of a prediction."""
        return self._checks.logged.type

    def decode(self, features: bytes) -> msgspec.Struct:
        """Decode and check the features of a call.

        Parameters
        ----------
        features
            JSON.

        Raises
        ------
        msgspec.ValidationError, UnicodeDecodeError
            If a value does not stand for one of its type, or a name is missing or unknown; if it is not
            UTF-8.
        SchemaError, NonFiniteError
            If a number is not finite or too long, or a text holds what no store does; the text names
            the feature.
        """
        try:
            decoded: msgspec.Struct = self._decode(features)
        except msgspec.ValidationError:  # nearly every one has the declared types
            decoded = self._request.convert(msgspec.json.decode(features))
        if self._fit(decoded):
            self._request.check_exact(msgspec.json.decode(features))
        return decoded

    def served(  # noqa: PLR0913, PLR0917 - a served prediction's parts, on the hot path
        self,
        id_: str,
        features: msgspec.Struct,
        output: Output,
        served_at: datetime,
        version: str,
        role: Role = "champion",
        propensity: float = 1.0,
        entity: dict[str, str] | None = None,
        ages_s: dict[str, float] | None = None,
        due_at: datetime | None = None,
    ) -> Entry:
        """Make the entry of a prediction whose parts were checked as they came.

        Raises
        ------
        SchemaError
            If something cannot be written as JSON.
        """
        logged = _LoggedPrediction(
            id_,
            features,
            output,
            served_at,
            version or UNSET,
            UNSET if role == "champion" else role,
            UNSET if propensity == 1.0 else propensity,
            entity or UNSET,
            ages_s or UNSET,
            due_at or UNSET,
        )
        return Entry(PREDICTION, id_, "", to_us(served_at), _encoded(logged, id_), self._hash)

    def prediction(self, prediction: Prediction, received_at_us: int | None = None) -> Entry:
        """Make the entry of a prediction.

        Parameters
        ----------
        prediction
            As it was served.
        received_at_us
            When it was received; the clock's present if not given.

        Raises
        ------
        SchemaError
            If it does not fit the pipeline.
        """
        at_us = self.now_us() if received_at_us is None else received_at_us
        try:
            return self._entry(prediction, at_us)
        except SchemaError:  # nearly every one holds Python's own values: others cost a second try
            plain_prediction = _plain_prediction(prediction)
            if plain_prediction is prediction:
                raise
            return self._entry(plain_prediction, at_us)

    def _entry(self, p: Prediction, at_us: int) -> Entry:
        self._checks.prediction(p)
        values = self._checks.features(p.id, p.features)
        self._checks.output(p.id, p.output)
        due_at = None if p.due_at is None else in_utc(p.due_at, "due_at")
        at = in_utc(p.served_at, "served_at")
        entry = self.served(
            p.id, values, p.output, at, p.version, p.role, p.propensity, p.entity, p.ages_s, due_at
        )
        return replace(entry, received_at_us=at_us)

    def label(
        self, label: Label, received_at_us: int | None = None, *, on_receipt: bool = False
    ) -> Entry:
        """Make the entry of a label.

        Parameters
        ----------
        label
            The truth.
        received_at_us
            When it was received; the clock's present if not given.
        on_receipt
            Whether nobody told when it became known: it counts as known on receipt, and without a key it
            is a repetition if the last label of its source has the same value.

        Raises
        ------
        SchemaError
            If it does not fit the pipeline.
        """
        if type(label.value) is not self._label_type or type(label.prediction_id) is not str:
            value = fitted(label.value, self._label_dtype)
            label = replace(label, value=value, prediction_id=plain(label.prediction_id))
        self._checks.label(label)
        id_, value, source = label.prediction_id, label.value, label.source
        known_at = in_utc(label.known_at, "known_at")
        logged = _LoggedLabel(
            id_,
            value,
            known_at,
            UNSET if source == "natural" else source,
            UNSET if label.key is None else label.key,
            label.by or UNSET,
            on_receipt or UNSET,
        )
        if label.key is not None:
            key = label.key
        else:  # the same value at the same time is the same label
            key = "" if on_receipt else f"{value!r} {to_us(known_at)}"
        at_us = self.now_us() if received_at_us is None else received_at_us
        return Entry(LABEL, id_, label_key(source, key), at_us, _encoded(logged, id_), self._hash)

    def find(self, prediction_id: str) -> Recorded | None:
        """Return the records of a prediction, its labels in the order in which they came.

        Returns
        -------
        Recorded or None
            None if neither it nor a label of it came.
        """
        return _recorded(self.inbox.entries_of(prediction_id))

    def now_us(self) -> int:
        """Return the time of receipt in microseconds since 1970, UTC; ClockError if it cannot be."""
        return to_us(self.receipts.now())


def _recorded(entries: Iterable[tuple[int, int, bytes, int | None]]) -> Recorded | None:
    prediction, labels = None, []
    for kind, received_at_us, payload, _ in entries:
        if kind == PREDICTION:
            stored = _STORED_PREDICTION.decode(payload)
            prediction = Prediction(**msgspec.structs.asdict(stored))
        else:
            label = _STORED_LABEL.decode(payload)
            labels.append(ReceivedLabel(label=label, received_at=from_us(received_at_us)))
    if prediction is None and not labels:
        return None
    return Recorded(prediction=prediction, labels=tuple(labels))


def _plain_prediction(prediction: Prediction) -> Prediction:
    """Return a prediction whose values are Python's own; the same one if they are already."""
    features = plain_items(prediction.features)
    numbers = type(prediction.output), type(prediction.propensity)
    entity = plain_items(prediction.entity)
    same = features is prediction.features and entity is prediction.entity
    if same and numbers == (float, float) and type(prediction.id) is str:
        return prediction  # nearly every one
    return replace(
        prediction,
        id=plain(prediction.id),
        entity=entity if entity is prediction.entity else dict(entity),
        features=features,
        output=plain_output(prediction.output),
        propensity=plain(prediction.propensity),
    )


def _encoded(record: _LoggedPrediction | _LoggedLabel, prediction_id: str) -> bytes:
    try:
        return _ENCODER.encode(record)
    except (TypeError, UnicodeEncodeError, OverflowError) as error:
        raise SchemaError(
            f"the record of {prediction_id!r} cannot be written as JSON: {error}",
            hint="send text, numbers, booleans and None",
        ) from error
