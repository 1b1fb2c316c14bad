"""Record labels as they arrive: each durable before its answer, each with its own result."""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET

from headwater.features.record.checks import hint_of, plain_words
from headwater.features.record.encoder import RecordEncoder
from headwater.features.record.entries import Entry
from headwater.infra.clock import to_us
from headwater.serving.api.schemas import LabelItem, LabelResult
from headwater.serving.metrics.service_metrics import PipelineMetrics
from headwater.serving.worker.group_commit import AppendResult, GroupCommit
from headwater.serving.worker.records import find_record
from headwater.spec.data.records import Label
from headwater.spec.errors import ConflictError, SchemaError

__all__ = ["LabelRecorder"]

_LABEL = msgspec.json.Decoder(LabelItem)


class LabelRecorder:
    """Records the labels of one pipeline in one process.

    Parameters
    ----------
    recorder, commit
        Encodes labels, and makes them durable.
    metrics
        Counts labels.
    """

    def __init__(self, recorder: RecordEncoder, commit: GroupCommit, metrics: PipelineMetrics) -> None:
        self.pipeline = recorder.pipeline
        self._recorder = recorder
        self._commit = commit
        self._metrics = metrics

    async def record(
        self, items: Sequence[msgspec.Raw], by: str, key: str | None = None
    ) -> list[LabelResult]:
        """Record labels, each independently of the others; they are durable when this returns.

        Parameters
        ----------
        items
            The labels as JSON, each a :class:`~headwater.serving.api.schemas.LabelItem`.
        by
            Name of the sender.
        key
            The request's own; a label without a key gets one of this and its place.

        Raises
        ------
        OverloadedError, StorageError
            If too many records wait, or the disk refuses: nothing is stored.
        """
        refused: list[LabelResult | None] = []
        labels: list[LabelItem] = []
        entries: list[Entry] = []
        for place, item in enumerate(items):
            read = self._read(item, by, None if key is None else f"{key}/{place}")
            refused.append(read if isinstance(read, LabelResult) else None)
            if not isinstance(read, LabelResult):
                labels.append(read[0])
                entries.append(read[1])
        appended = await self._commit.append([[entry] for entry in entries]) if entries else []
        written = iter([self._label_result(*pair) for pair in zip(labels, appended, strict=True)])
        results = [next(written) if result is None else result for result in refused]
        self._metrics.labelled(results)
        return results

    async def record_one(self, item: LabelItem, by: str) -> LabelResult:
        """Record one label; it is durable when this returns.

        Raises
        ------
        SchemaError, ConflictError, OverloadedError, StorageError
            If it does not fit, came before with another value, or cannot be written.
        """
        entry = self._entry(item, by)
        (appended,) = await self._commit.append([[entry]])
        result = self._label_result(item, appended)
        self._metrics.labelled([result])
        if result.status == "conflict":
            raise ConflictError(result.detail, result.hint)
        return result

    def _read(
        self, item: msgspec.Raw, by: str, key: str | None
    ) -> tuple[LabelItem, Entry] | LabelResult:
        try:
            label = _LABEL.decode(item)
        except msgspec.ValidationError as error:
            hint = hint_of(error, "send prediction_id and value")
            return LabelResult(_id_in(item), "refused", plain_words(error), hint)
        except UnicodeDecodeError:
            return LabelResult("", "refused", "the label is not UTF-8", "send UTF-8")
        if label.key is UNSET and key is not None:
            label.key = key
        try:
            return label, self._entry(label, by)
        except SchemaError as error:
            return LabelResult(label.prediction_id, "refused", error.what, error.hint)

    def _entry(self, item: LabelItem, by: str) -> Entry:
        now = self._recorder.receipts.now()
        label = Label(
            prediction_id=item.prediction_id,
            value=item.value,
            known_at=now if item.known_at is UNSET else item.known_at,
            source=item.source,
            key=None if item.key is UNSET else item.key,
            by=by,
        )
        return self._recorder.label(label, to_us(now), on_receipt=item.known_at is UNSET)

    def _label_result(self, item: LabelItem, appended: AppendResult) -> LabelResult:
        """Return the result of a label; the same value under the same key is known, whenever it came."""
        if not isinstance(appended, ConflictError):
            return LabelResult(item.prediction_id, "recorded" if appended else "known")
        key = None if item.key is UNSET else item.key
        recorded = find_record(self._recorder, item.prediction_id)
        labels = [known_label.label for known_label in recorded.labels]
        before = [earlier for earlier in labels if (earlier.source, earlier.key) == (item.source, key)]
        at = {earlier.known_at for earlier in before} if item.known_at is UNSET else {item.known_at}
        if any(earlier.value == item.value and earlier.known_at in at for earlier in before):
            return LabelResult(item.prediction_id, "known")
        first = before[0]
        return LabelResult(
            item.prediction_id,
            "conflict",
            f"key {key!r} came before with {first.value!r}, known at {first.known_at.isoformat()}",
            "send a revised label with a key of its own, or with none",
        )


class _WithId(msgspec.Struct):
    prediction_id: str = ""


def _id_in(item: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(item, type=_WithId).prediction_id
    except (msgspec.ValidationError, UnicodeDecodeError):
        return ""
