"""Serve one pipeline in a worker: predict, log and wait, label, look up."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from time import perf_counter
from typing import Any, ClassVar, NamedTuple

import msgspec
from msgspec import UNSET

from headwater.features.record.checks import plain_words
from headwater.features.record.encoder import RecordEncoder, open_inbox
from headwater.features.record.inbox import Entry
from headwater.infra.clock import Clock
from headwater.infra.ids import new_id
from headwater.infra.settings import Settings
from headwater.serving.api.schemas import (
    LabelItem,
    LabelResult,
    PredictionAnswer,
    PredictItem,
    answer_of,
    check_names,
)
from headwater.serving.metrics.service_metrics import PipelineMetrics
from headwater.serving.published.alarms import KeeperStatus, KeeperStatusFile
from headwater.serving.published.published_models import PublishedModels, ServingFile
from headwater.serving.worker.active_versions import ActiveVersions, LoadedVersion, VersionLoader
from headwater.serving.worker.feature_lookup import FeatureLookup
from headwater.serving.worker.group_commit import AppendResult, GroupCommit
from headwater.spec.data.records import FeatureValue, Label, Output, Prediction, Recorded, Role
from headwater.spec.errors import (
    ConflictError,
    HeadwaterError,
    NotFoundError,
    NotReadyError,
    SchemaError,
)
from headwater.spec.outputs import misfit_of_output
from headwater.spec.pipeline import Pipeline

__all__ = ["ServedPipeline"]

_logger = logging.getLogger("headwater.serving")
_LABEL = msgspec.json.Decoder(LabelItem)


class _MadePrediction(NamedTuple):
    """A prediction that is not recorded yet."""

    id: str
    features: msgspec.Struct
    entity: dict[str, str]
    answer: PredictionAnswer
    entry: Entry


class ServedPipeline:
    """Answer requests for one pipeline in one process.

    :func:`headwater.serving.process.app.create_app` makes it when the process starts. :meth:`follow`
    runs beside the requests, and swaps versions between two of them.

    Parameters
    ----------
    pipeline, settings, clock
        The pipeline, the address of its inbox and published states, and the time.
    metrics
        Counts predictions and labels.
    """

    commits: ClassVar[type[GroupCommit]] = GroupCommit
    """The class in which records wait for their sync."""

    def __init__(
        self, pipeline: Pipeline, settings: Settings, clock: Clock, metrics: PipelineMetrics
    ) -> None:
        self.pipeline = pipeline
        self.metrics = metrics
        self.active: ActiveVersions | None = None
        self.serving: ServingFile | None = None
        self.swap_failure: str | None = None
        self.recorder = RecordEncoder(pipeline, open_inbox(pipeline, settings), clock)
        self._hint = _hint(pipeline)
        self._clock = clock
        self._live = PublishedModels(pipeline, settings)
        self._keeper = KeeperStatusFile(pipeline.name, settings)
        self._loader = VersionLoader(pipeline.name, self._live)
        self.tables = FeatureLookup(pipeline, settings, metrics) if pipeline.tables else None
        self._features: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.recorder.request_type)
        serving = pipeline.serving
        batch = serving.durability == "batch"
        self._loss_window_ms = serving.window_ms if batch else None
        self._commit = self.commits(
            self.recorder.inbox, serving.most_waiting, serving.window_ms / 1_000 if batch else 0.0
        )

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
        NotReadyError, StaleError, OverloadedError, StorageError
            If no version serves yet, a looked-up value is too old, too many records wait, or the disk
            refuses.
        """
        active = self.active
        if active is None:
            raise NotReadyError(
                f"pipeline {self.pipeline.name!r} has no version that serves",
                hint=self.swap_failure or "train one: headwater train",
            )
        now, began_s = self._clock.now(), perf_counter()
        many = len(items) > 1
        predictions = [
            self._predict_one(active, item, now, f"predictions[{place}]." if many else "")
            for place, item in enumerate(items)
        ]
        batches = [[prediction.entry] for prediction in predictions]
        if self._loss_window_ms is not None:
            self._commit.append_later(batches)
            answers = [prediction.answer for prediction in predictions]
        else:
            results = await self._commit.append(batches)
            answers = [
                prediction.answer if result == 1 else self._answer_again(prediction, result)
                for prediction, result in zip(predictions, results, strict=True)
            ]
        self.metrics.predicted(answers, perf_counter() - began_s)
        return answers

    def check(self, item: PredictItem) -> None:
        """Check a request without answering it.

        Raises
        ------
        SchemaError
            If features do not fit; the text names the field.
        """
        check_names(item, "")
        self._decoded(item.features, "")

    async def label(self, items: Sequence[msgspec.Raw], by: str) -> list[LabelResult]:
        """Record labels, each independently of the others; they are durable when this returns.

        Parameters
        ----------
        items
            The labels as JSON, each a :class:`~headwater.serving.api.schemas.LabelItem`.
        by
            Name of the sender.

        Raises
        ------
        OverloadedError, StorageError
            If too many records wait, or the disk refuses: nothing is stored.
        """
        refused: list[LabelResult | None] = []
        labels: list[LabelItem] = []
        entries: list[Entry] = []
        for item in items:
            read = self._read(item, by)
            refused.append(read if isinstance(read, LabelResult) else None)
            if not isinstance(read, LabelResult):
                labels.append(read[0])
                entries.append(read[1])
        appended = await self._commit.append([[entry] for entry in entries]) if entries else []
        written = iter([self._label_result(*pair) for pair in zip(labels, appended, strict=True)])
        results = [next(written) if result is None else result for result in refused]
        self.metrics.labelled(results)
        return results

    async def label_one(self, item: LabelItem, by: str) -> LabelResult:
        """Record one label; it is durable when this returns.

        Raises
        ------
        SchemaError, ConflictError, OverloadedError, StorageError
            If it does not fit, came before with another value, or cannot be written.
        """
        entry = self._entry(item, by)
        (appended,) = await self._commit.append([[entry]])
        result = self._label_result(item, appended)
        self.metrics.labelled([result])
        if result.status == "conflict":
            raise ConflictError(result.detail, result.hint)
        return result

    def find(self, prediction_id: str) -> Recorded:
        """Return the record of a prediction.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        record = self.recorder.find(prediction_id)
        if record is None:
            raise NotFoundError(
                f"pipeline {self.pipeline.name!r} has recorded no prediction {prediction_id!r}",
                hint="check the id and the pipeline",
            )
        return record

    async def follow(self, every_s: float) -> None:
        """Swap to the published versions whenever they change, until cancelled.

        If a state fails to load, the one before goes on serving, and :attr:`swap_failure` says why.
        """
        seen = 0
        while True:
            stamp = self._live.stamp()
            if stamp != seen:
                seen = stamp
                await self.swap()
            await self.follow_tables()
            self.sample()
            await asyncio.sleep(every_s)

    def keeper_status(self) -> KeeperStatus:
        """Return the last status of the keeper: how far it has learned, and its alarms."""
        return self._keeper.read()

    def sample(self) -> None:
        """Set the gauges to their present values."""
        learned_to = 0 if self.champion is None else self.champion.learned_to
        self.metrics.sample(self._commit.waiting, self._commit.syncs, learned_to)

    async def follow_tables(self) -> None:
        """Open newly published tables, if the pipeline looks features up."""
        if self.tables is not None:
            await self.tables.follow(self._clock.now())

    async def swap(self) -> None:
        """Load the published versions beside the serving ones; serve them from the next request on."""
        try:
            serving = await asyncio.to_thread(self._live.read)
            if serving is None or not serving.states:
                return
            active = await asyncio.to_thread(self._loader.load, serving)
        except HeadwaterError as error:
            self.swap_failure = str(error)
            self.metrics.swap_failed()
            fields = {"pipeline": self.pipeline.name, "code": type(error).__name__}
            _logger.warning("the serving version stays: %s", error, extra={"told": fields})
            return
        before = self.champion
        if before is None or before.version != active.champion.version:
            self._log_swap(before, active.champion, serving.epoch)
        self.active = active
        self.serving, self.swap_failure = serving, self._loader.left_out

    def _log_swap(self, before: LoadedVersion | None, now: LoadedVersion, epoch: int) -> None:
        fields = {"pipeline": self.pipeline.name, "version": now.version, "epoch": epoch}
        replaced = None if before is None else before.version
        _logger.info("another version serves", extra={"told": {**fields, "replaced": replaced}})

    async def close(self) -> None:
        """Write the records that wait for their sync, and close the inbox."""
        await self._commit.close()
        self.recorder.inbox.close()
        if self.tables is not None:
            self.tables.close()

    def check_ready(self) -> None:
        """Check that a version serves, and that its tables are materialised.

        Raises
        ------
        NotReadyError
            If no version serves, or a table was never materialised.
        """
        if self.champion is None:
            raise NotReadyError(
                f"pipeline {self.pipeline.name!r} has no version that serves",
                hint="train one: headwater train",
            )
        missing_table = None if self.tables is None else self.tables.missing_table()
        if missing_table is not None:
            raise NotReadyError(
                f"table {missing_table!r} of {self.pipeline.name!r} was never materialised",
                hint="materialise it: headwater features materialise",
            )

    @property
    def champion(self) -> LoadedVersion | None:
        """The champion that answers; None before the first."""
        return None if self.active is None else self.active.champion

    @property
    def waiting(self) -> int:
        """The number of records that wait for their sync."""
        return self._commit.waiting

    @property
    def syncs(self) -> int:
        """The number of syncs of this process."""
        return self._commit.syncs

    def _predict_one(
        self, active: ActiveVersions, item: PredictItem, now: datetime, where: str
    ) -> _MadePrediction:
        check_names(item, where)
        id_ = new_id() if item.id is UNSET else item.id
        loaded, share = active.choose(id_, item.unit)
        features, ages_s = self._decoded(item.features, where), None
        if self.tables is not None:
            features, ages_s = self._look_up(self.tables, features, item, now, where)
        values: dict[str, FeatureValue] = msgspec.structs.asdict(features)
        output = self._output(loaded, id_, values, where)
        entry = self.recorder.served(
            id_, features, output, now, loaded.version, loaded.role, share, item.entity, ages_s
        )
        answer = self._answer(id_, output, loaded.version, loaded.role)
        return _MadePrediction(id_, features, item.entity, answer, entry)

    def _output(
        self, loaded: LoadedVersion, id_: str, values: dict[str, FeatureValue], where: str
    ) -> Output:
        """Let a version predict; refuse a request on which it fails, since it passed its probes.

        An output that is not valid for the task is a failure too: it is neither answered nor logged.
        """
        try:
            output = loaded.learner.predict_one(values)
        except Exception as error:
            _logger.exception("version %s fails on prediction %s", loaded.version, id_)
            raise SchemaError(
                f"{where}features: version {loaded.version} cannot answer them ({type(error).__name__})",
                hint="look for values far from what it has learned",
            ) from error
        why = misfit_of_output(self.pipeline.task, output)
        if why is not None:
            _logger.error("version %s fails on prediction %s: its output %s", loaded.version, id_, why)
            raise SchemaError(
                f"{where}features: version {loaded.version} cannot answer them: its output {why}",
                hint="look for values far from what it has learned",
            )
        return output

    def _decoded(self, features: msgspec.Raw, where: str) -> msgspec.Struct:
        try:
            decoded: msgspec.Struct = self._features.decode(features)
        except msgspec.ValidationError as error:
            raise SchemaError(plain_words(error, f"{where}features."), hint=self._hint) from error
        try:
            self.recorder.fit(decoded)
        except SchemaError as error:
            place = f"{where[:-1]}: " if where else ""
            raise type(error)(f"{place}{error.what}", error.hint) from error
        return decoded

    def _look_up(
        self, tables: FeatureLookup, sent: msgspec.Struct, item: PredictItem, now: datetime, where: str
    ) -> tuple[msgspec.Struct, dict[str, float]]:
        """Add the looked-up features; a request that came before may use those of then."""
        values: dict[str, FeatureValue] = msgspec.structs.asdict(sent)
        try:
            looked_up, ages_s = tables.look_up(item.entity, now, where)
        except HeadwaterError:
            recorded = None if item.id is UNSET else self.recorder.find(item.id)
            before = None if recorded is None else recorded.prediction
            if before is None or not self._came_before(before, values, item):
                raise
            looked_up, ages_s = before.features, before.ages_s
        values.update(looked_up)
        return self.recorder.logged_type(**values), ages_s

    def _answer(self, id_: str, output: Output, version: str, role: Role) -> PredictionAnswer:
        window = UNSET if self._loss_window_ms is None else self._loss_window_ms
        return answer_of(self.pipeline.task, id_, output, version, role, window)

    def _answer_again(self, made: _MadePrediction, appended: AppendResult) -> PredictionAnswer:
        """Answer a repeated request as it was answered before.

        Raises
        ------
        ConflictError
            If the id came before with another request.
        """
        if not isinstance(appended, ConflictError):
            return made.answer
        stored = self.find(made.id).prediction
        same = stored is not None and self._same(stored, made)
        if stored is None or not same:
            raise ConflictError(
                f"prediction {made.id!r} came before with other features or entity keys",
                hint="give a new prediction its own id",
            )
        return self._answer(made.id, stored.output, stored.version, stored.role)

    def _same(self, stored: Prediction, made: _MadePrediction) -> bool:
        """Return whether a request is that of a stored prediction; looked-up features may differ."""
        features: dict[str, FeatureValue] = msgspec.structs.asdict(made.features)
        before = stored.features
        if self.tables is not None:
            names = [feature.name for feature in self.pipeline.request_features]
            features, before = ({name: each.get(name) for name in names} for each in (features, before))
        return before == features and stored.entity == made.entity

    def _came_before(self, before: Prediction, sent: dict[str, FeatureValue], item: PredictItem) -> bool:
        whole = before.features.keys() == set(self.pipeline.feature_names)
        return whole and before.entity == item.entity and sent.items() <= before.features.items()

    def _read(self, item: msgspec.Raw, by: str) -> tuple[LabelItem, Entry] | LabelResult:
        try:
            label = _LABEL.decode(item)
        except msgspec.ValidationError as error:
            return LabelResult(
                _id_in(item), "refused", plain_words(error), "send prediction_id and value"
            )
        try:
            return label, self._entry(label, by)
        except SchemaError as error:
            return LabelResult(label.prediction_id, "refused", error.what, error.hint)

    def _entry(self, item: LabelItem, by: str) -> Entry:
        label = Label(
            prediction_id=item.prediction_id,
            value=item.value,
            known_at=self._clock.now() if item.known_at is UNSET else item.known_at,
            source=item.source,
            key=None if item.key is UNSET else item.key,
            by=by,
        )
        return self.recorder.label(label)

    def _label_result(self, item: LabelItem, appended: AppendResult) -> LabelResult:
        """Return the result of a label; the same value under the same key is known, whenever it came."""
        if not isinstance(appended, ConflictError):
            return LabelResult(item.prediction_id, "recorded" if appended else "known")
        key = None if item.key is UNSET else item.key
        labels = [known_label.label for known_label in self.find(item.prediction_id).labels]
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


def _hint(pipeline: Pipeline) -> str:
    features = pipeline.request_features
    names = ", ".join(feature.name for feature in features) or "none: all are looked up"
    within = (
        ", within what they declare: see /docs" if any(feature.is_ranged for feature in features) else ""
    )
    return f"send exactly the features {names}{within}"


class _WithId(msgspec.Struct):
    prediction_id: str = ""


def _id_in(item: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(item, type=_WithId).prediction_id
    except msgspec.ValidationError:
        return ""
