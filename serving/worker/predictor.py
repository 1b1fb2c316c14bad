"""Answer requests: choose a version, look features up, predict, log and wait."""

import logging
from collections.abc import Sequence
from datetime import datetime
from time import perf_counter
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from headwater.features.record.checks import plain_words
from headwater.features.record.entries import Entry
from headwater.infra.ids import new_id
from headwater.serving.api.schemas import PredictionAnswer, PredictItem, answer_of, check_names
from headwater.serving.metrics.service_metrics import PipelineMetrics
from headwater.serving.worker.active_versions import ActiveVersions
from headwater.serving.worker.feature_lookup import FeatureLookup
from headwater.serving.worker.group_commit import AppendResult, GroupCommit
from headwater.serving.worker.model_outputs import CheckedRequest, ModelOutputs
from headwater.serving.worker.pair import Pair
from headwater.serving.worker.records import find_record
from headwater.spec.data.records import FeatureValue, Output, Prediction, Role, utc
from headwater.spec.errors import ConflictError, HeadwaterError, NotReadyError, SchemaError
from headwater.spec.pipeline import Pipeline

__all__ = ["Predictor"]

_logger = logging.getLogger("headwater.serving")


class _MadePrediction(NamedTuple):
    """A prediction that is not recorded yet."""

    id: str
    features: msgspec.Struct
    entity: dict[str, str]
    due_at: datetime | None
    answer: PredictionAnswer
    entry: Entry


class Predictor:
    """Answers the requests of one pipeline in one process.

    Parameters
    ----------
    pair
        The declaration, before a version answers by it.
    commit
        Makes predictions durable.
    metrics
        Counts predictions.

    Attributes
    ----------
    pair
        What requests are decoded, predicted and recorded by; each request sees one pair.
    why_none
        Why none answers yet, if the published ones could not be loaded.
    """

    def __init__(
        self,
        pair: Pair,
        commit: GroupCommit,
        metrics: PipelineMetrics,
    ) -> None:
        self.pair = pair
        self.why_none: str | None = None
        self.pipeline = pair.pipeline
        self._commit = commit
        self._metrics = metrics
        self._models = ModelOutputs(self.pipeline.task)
        serving = self.pipeline.serving
        self._loss_window_ms = serving.window_ms if serving.durability == "batch" else None

    async def predict(self, items: Sequence[PredictItem]) -> list[PredictionAnswer]:
        """Answer requests once all their predictions are recorded: all of them, or none.

        Parameters
        ----------
        items
            The requests.

        Raises
        ------
        SchemaError
            If features or entity keys do not fit; the text names the field, and the place among many.
        ConflictError
            If an id came before with other features.
        NotReadyError, StaleError, OverloadedError, ModelError, StorageError, ClockError
            If no version serves yet, a looked-up value is too old, too many records wait, the process
            of an isolated version does not answer, the disk refuses, or the clock is ahead.
        """
        pair = self.pair
        active = pair.active
        if active is None:
            raise NotReadyError(
                f"pipeline {self.pipeline.name!r} has no version that serves",
                hint=self.why_none or "train one: headwater train",
            )
        now, began_s = pair.recorder.receipts.now(), perf_counter()
        many = len(items) > 1
        requests = [
            self._checked(pair, active, item, now, f"predictions[{place}]." if many else "")
            for place, item in enumerate(items)
        ]
        if many or active.any_isolated:
            outputs = await self._models.outputs(requests)
        else:
            outputs = [self._models.output_on_loop(request) for request in requests]
        predictions = [
            self._made(pair, request, output, now)
            for request, output in zip(requests, outputs, strict=True)
        ]
        batches = [[prediction.entry] for prediction in predictions]
        if self._loss_window_ms is not None:
            self._commit.append_later(batches)
            answers = [prediction.answer for prediction in predictions]
        else:
            results = await self._commit.append(batches)
            answers = [
                prediction.answer if result == 1 else self._answer_again(pair, prediction, result)
                for prediction, result in zip(predictions, results, strict=True)
            ]
        self._metrics.predicted(answers, perf_counter() - began_s)
        return answers

    def check(self, item: PredictItem) -> None:
        """Check a request without answering it.

        Raises
        ------
        SchemaError
            If features do not fit; the text names the field.
        """
        check_names(item, "")
        self._decoded(self.pair, item.features, "")

    def _checked(
        self, pair: Pair, active: ActiveVersions, item: PredictItem, now: datetime, where: str
    ) -> CheckedRequest:
        check_names(item, where)
        id_ = new_id() if item.id is UNSET else item.id
        loaded, share = active.choose(id_, item.unit)
        features, ages_s = self._decoded(pair, item.features, where), None
        if pair.tables is not None:
            features, ages_s = self._look_up(pair, pair.tables, features, item, now, where)
        values: dict[str, FeatureValue] = msgspec.structs.asdict(features)
        due_at = utc(item.due_at, f"{where}due_at") if isinstance(item.due_at, datetime) else None
        return CheckedRequest(id_, loaded, share, features, values, ages_s, item.entity, due_at, where)

    def _made(
        self, pair: Pair, request: CheckedRequest, output: Output, now: datetime
    ) -> _MadePrediction:
        id_, features, entity = request.id, request.features, request.entity
        version, role = request.loaded.version, request.loaded.role
        share, ages_s, due_at = request.share, request.ages_s, request.due_at
        entry = pair.recorder.served(
            id_, features, output, now, version, role, share, entity, ages_s, due_at
        )
        answer = self._answer(id_, output, version, role)
        return _MadePrediction(id_, features, entity, due_at, answer, entry)

    def _decoded(self, pair: Pair, features: msgspec.Raw, where: str) -> msgspec.Struct:
        try:
            return pair.recorder.decode(features)
        except msgspec.ValidationError as error:
            raise SchemaError(plain_words(error, f"{where}features."), hint=pair.hint) from error
        except UnicodeDecodeError as error:
            raise SchemaError(f"{where}features: they are not UTF-8", hint="send UTF-8") from error
        except SchemaError as error:
            place = f"{where[:-1]}: " if where else ""
            raise type(error)(f"{place}{error.what}", error.hint) from error

    def _look_up(
        self,
        pair: Pair,
        tables: FeatureLookup,
        sent: msgspec.Struct,
        item: PredictItem,
        now: datetime,
        where: str,
    ) -> tuple[msgspec.Struct, dict[str, float]]:
        """Add the looked-up features; a request that came before may use those of then."""
        values: dict[str, FeatureValue] = msgspec.structs.asdict(sent)
        try:
            looked_up, ages_s = tables.look_up(item.entity, now, where)
        except HeadwaterError:
            recorded = None if item.id is UNSET else pair.recorder.find(item.id)
            before = None if recorded is None else recorded.prediction
            if before is None or not _came_before(before, values, item, pair.pipeline):
                raise
            looked_up, ages_s = before.features, before.ages_s
        values.update(looked_up)
        return pair.recorder.logged_type(**values), ages_s

    def _answer(self, id_: str, output: Output, version: str, role: Role) -> PredictionAnswer:
        window = UNSET if self._loss_window_ms is None else self._loss_window_ms
        return answer_of(self.pipeline.task, id_, output, version, role, window)

    def _answer_again(
        self, pair: Pair, made: _MadePrediction, appended: AppendResult
    ) -> PredictionAnswer:
        """Answer a repeated request as it was answered before.

        Raises
        ------
        ConflictError
            If the id came before with another request.
        """
        if not isinstance(appended, ConflictError):
            return made.answer
        stored = find_record(pair.recorder, made.id).prediction
        same = stored is not None and _same(pair, stored, made)
        if stored is None or not same:
            raise ConflictError(
                f"prediction {made.id!r} came before with other features, entity keys or due_at",
                hint="give a new prediction its own id",
            )
        return self._answer(made.id, stored.output, stored.version, stored.role)


def _same(pair: Pair, stored: Prediction, made: _MadePrediction) -> bool:
    """Return whether a request is that of a stored prediction; looked-up features may differ."""
    features: dict[str, FeatureValue] = msgspec.structs.asdict(made.features)
    before = stored.features
    if pair.tables is not None:
        names = [feature.name for feature in pair.pipeline.request_features]
        features, before = ({name: each.get(name) for name in names} for each in (features, before))
    return before == features and stored.entity == made.entity and stored.due_at == made.due_at


def _came_before(
    before: Prediction, sent: dict[str, FeatureValue], item: PredictItem, pipeline: Pipeline
) -> bool:
    whole = before.features.keys() == set(pipeline.feature_names)
    return whole and before.entity == item.entity and sent.items() <= before.features.items()
