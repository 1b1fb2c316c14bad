"""One pipeline as a worker serves it: predict, log and wait, label, look up."""

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
from headwater.serving.worker.group_commit import Ended, GroupCommit
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


class _Made(NamedTuple):
    """A prediction that is made and not yet recorded."""

    id: str
    features: msgspec.Struct
    entity: dict[str, str]
    answer: PredictionAnswer
    entry: Entry


class ServedPipeline:
    """Answers for one pipeline in one process.

    Made by :func:`headwater.serving.process.app.create_app` when the process starts; :meth:`follow` runs
    beside the requests and swaps versions between two of them.

    Parameters
    ----------
    pipeline, settings, clock
        What to serve, where its inbox and its live states are, and the time.
    metrics
        Counts what it does.
    """

    commits: ClassVar[type[GroupCommit]] = GroupCommit
    """What records wait in for their sync."""

    def __init__(
        self, pipeline: Pipeline, settings: Settings, clock: Clock, metrics: PipelineMetrics
    ) -> None:
        self.pipeline = pipeline
        self.metrics = metrics
        self.answering: ActiveVersions | None = None
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
        """Answer predictions after they are recorded: all of them, or none.

        Parameters
        ----------
        items
            What is asked for.

        Raises
        ------
        SchemaError
            If features or entity keys do not fit; the text names the field, and the place among many.
        ConflictError
            If an id came before with other features.
        NotReadyError, StaleError, OverloadedError, StorageError
            If nothing serves yet, what is looked up is too old, too much waits, or the disk refuses.
        """
        answering = self.answering
        if answering is None:
            raise NotReadyError(
                f"pipeline {self.pipeline.name!r} has no version that serves",
                hint=self.swap_failure or "train one: headwater train",
            )
        now, began_s = self._clock.now(), perf_counter()
        many = len(items) > 1
        made = [
            self._make(answering, item, now, f"predictions[{place}]." if many else "")
            for place, item in enumerate(items)
        ]
        batches = [[one.entry] for one in made] if many else [[made[0].entry]]
        if self._loss_window_ms is not None:
            self._commit.append_later(batches)
            answers = [one.answer for one in made]
        else:
            ended = await self._commit.append(batches)
            answers = [
                one.answer if found == 1 else self._again(one, found)
                for one, found in zip(made, ended, strict=True)
            ]
        self.metrics.predicted(answers, perf_counter() - began_s)
        return answers

    def check(self, item: PredictItem) -> None:
        """Check what is asked for, without answering.

        Raises
        ------
        SchemaError
            If features do not fit; the text names the field.
        """
        check_names(item, "")
        self._decoded(item.features, "")

    async def label(self, items: Sequence[msgspec.Raw], by: str) -> list[LabelResult]:
        """Record labels, each for itself; durable when this returns.

        Parameters
        ----------
        items
            As JSON, each a :class:`~headwater.serving.api.schemas.LabelItem`.
        by
            Who sends them.

        Raises
        ------
        OverloadedError, StorageError
            If too much waits, or the disk refuses: nothing is kept then.
        """
        results: list[LabelResult | None] = []
        given: list[LabelItem] = []
        entries: list[Entry] = []
        for item in items:
            read = self._read(item, by)
            results.append(read if isinstance(read, LabelResult) else None)
            if not isinstance(read, LabelResult):
                given.append(read[0])
                entries.append(read[1])
        ended = await self._commit.append([[entry] for entry in entries]) if entries else []
        kept = iter([self._labelled(one, found) for one, found in zip(given, ended, strict=True)])
        told = [next(kept) if result is None else result for result in results]
        self.metrics.labelled(told)
        return told

    async def label_one(self, item: LabelItem, by: str) -> LabelResult:
        """Record one label; durable when this returns.

        Raises
        ------
        SchemaError, ConflictError, OverloadedError, StorageError
            If it does not fit, came before with another value, or cannot be written.
        """
        entry = self._entry(item, by)
        (ended,) = await self._commit.append([[entry]])
        found = self._labelled(item, ended)
        self.metrics.labelled([found])
        if found.status == "conflict":
            raise ConflictError(found.detail, found.hint)
        return found

    def find(self, prediction_id: str) -> Recorded:
        """Give what was recorded of a prediction.

        Raises
        ------
        NotFoundError
            If nothing was.
        """
        found = self.recorder.find(prediction_id)
        if found is None:
            raise NotFoundError(
                f"pipeline {self.pipeline.name!r} has recorded no prediction {prediction_id!r}",
                hint="check the id and the pipeline",
            )
        return found

    async def follow(self, every_s: float) -> None:
        """Swap to what is published, whenever that changes; ends when cancelled.

        A state that fails to load leaves the one before serving, and is told of.
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

    def told(self) -> KeeperStatus:
        """Give what the keeper told last: how learning stands, and its alarms."""
        return self._keeper.read()

    def sample(self) -> None:
        """Bring the gauges up to the moment."""
        learned_to = 0 if self.champion is None else self.champion.learned_to
        self.metrics.sample(self._commit.waiting, self._commit.syncs, learned_to)

    async def follow_tables(self) -> None:
        """Look features up in what is published, where there are any to look up."""
        if self.tables is not None:
            await self.tables.follow(self._clock.now())

    async def swap(self) -> None:
        """Load what is published beside what serves, then serve it from the next request on."""
        try:
            serving = await asyncio.to_thread(self._live.read)
            if serving is None or not serving.states:
                return
            answering = await asyncio.to_thread(self._loader.load, serving)
        except HeadwaterError as error:
            self.swap_failure = str(error)
            self.metrics.swap_failed()
            told = {"pipeline": self.pipeline.name, "code": type(error).__name__}
            _logger.warning("what serves stays: %s", error, extra={"told": told})
            return
        before = self.champion
        if before is None or before.version != answering.champion.version:
            self._log_swap(before, answering.champion, serving.epoch)
        self.answering = answering
        self.serving, self.swap_failure = serving, self._loader.left_out

    def _log_swap(self, before: LoadedVersion | None, now: LoadedVersion, epoch: int) -> None:
        told = {"pipeline": self.pipeline.name, "version": now.version, "epoch": epoch}
        replaced = None if before is None else before.version
        _logger.info("another version serves", extra={"told": {**told, "replaced": replaced}})

    async def close(self) -> None:
        """Write what waits for its sync, and close the inbox."""
        await self._commit.close()
        self.recorder.inbox.close()
        if self.tables is not None:
            self.tables.close()

    def check_ready(self) -> None:
        """Check that there is a version that answers, and all that it looks up.

        Raises
        ------
        NotReadyError
            If not.
        """
        if self.champion is None:
            raise NotReadyError(
                f"pipeline {self.pipeline.name!r} has no version that serves",
                hint="train one: headwater train",
            )
        lacking = None if self.tables is None else self.tables.lacking()
        if lacking is not None:
            raise NotReadyError(
                f"table {lacking!r} of {self.pipeline.name!r} was never materialised",
                hint="materialise it: headwater features materialise",
            )

    @property
    def champion(self) -> LoadedVersion | None:
        """The champion that answers, if one does."""
        return None if self.answering is None else self.answering.champion

    @property
    def waiting(self) -> int:
        """How many records wait for their sync."""
        return self._commit.waiting

    @property
    def syncs(self) -> int:
        """How often this process has synced."""
        return self._commit.syncs

    def _make(self, answering: ActiveVersions, item: PredictItem, now: datetime, where: str) -> _Made:
        check_names(item, where)
        id_ = new_id() if item.id is UNSET else item.id
        loaded, share = answering.choose(id_, item.unit)
        features, ages_s = self._decoded(item.features, where), None
        if self.tables is not None:
            features, ages_s = self._completed(self.tables, features, item, now, where)
        values: dict[str, FeatureValue] = msgspec.structs.asdict(features)
        output = self._output(loaded, id_, values, where)
        entry = self.recorder.served(
            id_, features, output, now, loaded.version, loaded.role, share, item.entity, ages_s
        )
        answer = self._answer(id_, output, loaded.version, loaded.role)
        return _Made(id_, features, item.entity, answer, entry)

    def _output(
        self, loaded: LoadedVersion, id_: str, values: dict[str, FeatureValue], where: str
    ) -> Output:
        """Let a version answer; what it fails on is refused, for it was tried before it served.

        What is no output of the task is a failure, too: it is neither answered nor logged.
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
            found: msgspec.Struct = self._features.decode(features)
        except msgspec.ValidationError as error:
            raise SchemaError(plain_words(error, f"{where}features."), hint=self._hint) from error
        try:
            self.recorder.fit(found)
        except SchemaError as error:
            place = f"{where[:-1]}: " if where else ""
            raise type(error)(f"{place}{error.what}", error.hint) from error
        return found

    def _completed(
        self, tables: FeatureLookup, asked: msgspec.Struct, item: PredictItem, now: datetime, where: str
    ) -> tuple[msgspec.Struct, dict[str, float]]:
        """Add what is looked up; for a request that came before, what was looked up then will do."""
        values: dict[str, FeatureValue] = msgspec.structs.asdict(asked)
        try:
            found, ages_s = tables.look_up(item.entity, now, where)
        except HeadwaterError:
            recorded = None if item.id is UNSET else self.recorder.find(item.id)
            before = None if recorded is None else recorded.prediction
            if before is None or not self._came_before(before, values, item):
                raise
            found, ages_s = before.features, before.ages_s
        values.update(found)
        return self.recorder.logged_type(**values), ages_s

    def _answer(self, id_: str, output: Output, version: str, role: Role) -> PredictionAnswer:
        window = UNSET if self._loss_window_ms is None else self._loss_window_ms
        return answer_of(self.pipeline.task, id_, output, version, role, window)

    def _again(self, made: _Made, ended: Ended) -> PredictionAnswer:
        """Answer what came before as it was answered then, if it is the same request."""
        if not isinstance(ended, ConflictError):
            return made.answer
        stored = self.find(made.id).prediction
        same = stored is not None and self._same(stored, made)
        if stored is None or not same:
            raise ConflictError(
                f"prediction {made.id!r} came before with other features or entity keys",
                hint="give a new prediction its own id",
            )
        return self._answer(made.id, stored.output, stored.version, stored.role)

    def _same(self, stored: Prediction, made: _Made) -> bool:
        """Say whether a request is that of a stored prediction; what was looked up may have changed."""
        features: dict[str, FeatureValue] = msgspec.structs.asdict(made.features)
        before = stored.features
        if self.tables is not None:
            names = [feature.name for feature in self.pipeline.request_features]
            features, before = ({name: each.get(name) for name in names} for each in (features, before))
        return before == features and stored.entity == made.entity

    def _came_before(
        self, before: Prediction, asked: dict[str, FeatureValue], item: PredictItem
    ) -> bool:
        whole = before.features.keys() == set(self.pipeline.feature_names)
        return whole and before.entity == item.entity and asked.items() <= before.features.items()

    def _read(self, item: msgspec.Raw, by: str) -> tuple[LabelItem, Entry] | LabelResult:
        try:
            given = _LABEL.decode(item)
        except msgspec.ValidationError as error:
            return LabelResult(
                _id_in(item), "refused", plain_words(error), "send prediction_id and value"
            )
        try:
            return given, self._entry(given, by)
        except SchemaError as error:
            return LabelResult(given.prediction_id, "refused", error.what, error.hint)

    def _entry(self, given: LabelItem, by: str) -> Entry:
        label = Label(
            prediction_id=given.prediction_id,
            value=given.value,
            known_at=self._clock.now() if given.known_at is UNSET else given.known_at,
            source=given.source,
            key=None if given.key is UNSET else given.key,
            by=by,
        )
        return self.recorder.label(label)

    def _labelled(self, given: LabelItem, ended: Ended) -> LabelResult:
        """Say what became of a label; the same value under the same key is known, whenever it came."""
        if not isinstance(ended, ConflictError):
            return LabelResult(given.prediction_id, "recorded" if ended else "known")
        key = None if given.key is UNSET else given.key
        labels = [told.label for told in self.find(given.prediction_id).labels]
        before = [one for one in labels if (one.source, one.key) == (given.source, key)]
        at = {one.known_at for one in before} if given.known_at is UNSET else {given.known_at}
        if any(one.value == given.value and one.known_at in at for one in before):
            return LabelResult(given.prediction_id, "known")
        first = before[0]
        return LabelResult(
            given.prediction_id,
            "conflict",
            f"key {key!r} came before with {first.value!r}, known at {first.known_at.isoformat()}",
            "send a revised label with a key of its own, or with none",
        )


def _hint(pipeline: Pipeline) -> str:
    asked = pipeline.request_features
    names = ", ".join(feature.name for feature in asked) or "none: all are looked up"
    within = ", within what they declare: see /docs" if any(one.is_ranged for one in asked) else ""
    return f"send exactly the features {names}{within}"


class _WithId(msgspec.Struct):
    prediction_id: str = ""


def _id_in(item: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(item, type=_WithId).prediction_id
    except msgspec.ValidationError:
        return ""
