"""One pipeline as a worker serves it: predict, log and wait, label, look up."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from time import perf_counter
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from headwater.features.checks import plain_words
from headwater.features.inbox import Entry
from headwater.features.recorder import Recorder, open_inbox
from headwater.infra.clock import Clock
from headwater.infra.settings import Settings
from headwater.serving.answering import Answering, Loaded, Loader
from headwater.serving.group_commit import Ended, GroupCommit
from headwater.serving.ids import new_id
from headwater.serving.live import Live, ServingFile
from headwater.serving.metrics import PipelineMetrics
from headwater.serving.wire import Answer, LabelItem, Labelled, PredictItem, answer_of
from headwater.spec.errors import (
    ConflictError,
    HeadwaterError,
    NotFoundError,
    NotReadyError,
    SchemaError,
)
from headwater.spec.pipeline import Pipeline
from headwater.spec.records import FeatureValue, Label, Output, Prediction, Recorded, Role

__all__ = ["ServedPipeline"]

_logger = logging.getLogger("headwater.serving")
_LABEL = msgspec.json.Decoder(LabelItem)


class _Made(NamedTuple):
    """A prediction that is made and not yet recorded."""

    id: str
    features: msgspec.Struct
    entity: dict[str, str]
    answer: Answer
    entry: Entry


class ServedPipeline:
    """Answers for one pipeline in one process.

    Made by :func:`headwater.serving.app.create_app` when the process starts; :meth:`follow` runs
    beside the requests and swaps versions between two of them.

    Parameters
    ----------
    pipeline, settings, clock
        What to serve, where its inbox and its live states are, and the time.
    metrics
        Counts what it does.
    """

    def __init__(
        self, pipeline: Pipeline, settings: Settings, clock: Clock, metrics: PipelineMetrics
    ) -> None:
        self.pipeline = pipeline
        self.metrics = metrics
        self.answering: Answering | None = None
        self.serving: ServingFile | None = None
        self.swap_failure: str | None = None
        self.recorder = Recorder(pipeline, open_inbox(pipeline, settings), clock)
        self._clock = clock
        self._live = Live(pipeline, settings)
        self._loader = Loader(pipeline.name, self._live)
        self._features: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self.recorder.features_type)
        serving = pipeline.serving
        batch = serving.durability == "batch"
        self._loss_window_ms = serving.window_ms if batch else None
        self._commit = GroupCommit(
            self.recorder.inbox, serving.most_waiting, serving.window_ms / 1_000 if batch else 0.0
        )

    async def predict(self, items: Sequence[PredictItem]) -> list[Answer]:
        """Answer predictions after they are recorded: all of them, or none.

        Parameters
        ----------
        items
            What is asked for.

        Raises
        ------
        SchemaError
            If features do not fit; the text names the field, and the place among many.
        ConflictError
            If an id came before with other features.
        NotReadyError, OverloadedError, StorageError
            If nothing serves yet, too much waits, or the disk refuses.
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
        self._decoded("" if item.id is UNSET else item.id, item.features, "")

    async def label(self, items: Sequence[msgspec.Raw], by: str) -> list[Labelled]:
        """Record labels, each for itself; durable when this returns.

        Parameters
        ----------
        items
            As JSON, each a :class:`~headwater.serving.wire.LabelItem`.
        by
            Who sends them.

        Raises
        ------
        OverloadedError, StorageError
            If too much waits, or the disk refuses: nothing is kept then.
        """
        results: list[Labelled | None] = []
        given: list[LabelItem] = []
        entries: list[Entry] = []
        for item in items:
            read = self._read(item, by)
            results.append(read if isinstance(read, Labelled) else None)
            if not isinstance(read, Labelled):
                given.append(read[0])
                entries.append(read[1])
        ended = await self._commit.append([[entry] for entry in entries]) if entries else []
        kept = iter([self._labelled(one, found) for one, found in zip(given, ended, strict=True)])
        told = [next(kept) if result is None else result for result in results]
        self.metrics.labelled(told)
        return told

    async def label_one(self, item: LabelItem, by: str) -> Labelled:
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
            self.sample()
            await asyncio.sleep(every_s)

    def sample(self) -> None:
        """Bring the gauges up to the moment."""
        learned_to = 0 if self.champion is None else self.champion.learned_to
        self.metrics.sample(self._commit.waiting, self._commit.syncs, learned_to)

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

    def _log_swap(self, before: Loaded | None, now: Loaded, epoch: int) -> None:
        told = {"pipeline": self.pipeline.name, "version": now.version, "epoch": epoch}
        replaced = None if before is None else before.version
        _logger.info("another version serves", extra={"told": {**told, "replaced": replaced}})

    async def close(self) -> None:
        """Write what waits for its sync, and close the inbox."""
        await self._commit.close()
        self.recorder.inbox.close()

    @property
    def champion(self) -> Loaded | None:
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

    def _make(self, answering: Answering, item: PredictItem, now: datetime, where: str) -> _Made:
        id_ = new_id() if item.id is UNSET else item.id
        loaded, share = answering.choose(id_, item.unit)
        features = self._decoded(id_, item.features, where)
        values: dict[str, FeatureValue] = msgspec.structs.asdict(features)
        output = self._output(loaded, id_, values, where)
        entry = self.recorder.served(
            id_, features, output, now, loaded.version, loaded.role, share, item.entity
        )
        answer = self._answer(id_, output, loaded.version, loaded.role)
        return _Made(id_, features, item.entity, answer, entry)

    def _output(self, loaded: Loaded, id_: str, values: dict[str, FeatureValue], where: str) -> Output:
        """Let a version answer; what it fails on is refused, for it was tried before it served."""
        try:
            return loaded.learner.predict_one(values)
        except Exception as error:
            _logger.exception("version %s fails on prediction %s", loaded.version, id_)
            raise SchemaError(
                f"{where}features: version {loaded.version} cannot answer them ({type(error).__name__})",
                hint="look for values far from what it has learned",
            ) from error

    def _decoded(self, id_: str, features: msgspec.Raw, where: str) -> msgspec.Struct:
        try:
            found: msgspec.Struct = self._features.decode(features)
        except msgspec.ValidationError as error:
            raise SchemaError(
                plain_words(error, f"{where}features."),
                hint=f"send exactly the features {', '.join(self.pipeline.feature_names)}",
            ) from error
        self.recorder.fit(id_, found)
        return found

    def _answer(self, id_: str, output: Output, version: str, role: Role) -> Answer:
        window = UNSET if self._loss_window_ms is None else self._loss_window_ms
        return answer_of(self.pipeline.task, id_, output, version, role, window)

    def _again(self, made: _Made, ended: Ended) -> Answer:
        """Answer what came before as it was answered then, if it is the same request."""
        if not isinstance(ended, ConflictError):
            return made.answer
        stored = self.find(made.id).prediction
        same = stored is not None and _same(stored, made)
        if stored is None or not same:
            raise ConflictError(
                f"prediction {made.id!r} came before with other features or entity keys",
                hint="give a new prediction its own id",
            )
        return self._answer(made.id, stored.output, stored.version, stored.role)

    def _read(self, item: msgspec.Raw, by: str) -> tuple[LabelItem, Entry] | Labelled:
        try:
            given = _LABEL.decode(item)
        except msgspec.ValidationError as error:
            return Labelled(_id_in(item), "refused", plain_words(error), "send prediction_id and value")
        try:
            return given, self._entry(given, by)
        except SchemaError as error:
            return Labelled(given.prediction_id, "refused", error.what, error.hint)

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

    def _labelled(self, given: LabelItem, ended: Ended) -> Labelled:
        """Say what became of a label; the same value under the same key is known, whenever it came."""
        if not isinstance(ended, ConflictError):
            return Labelled(given.prediction_id, "recorded" if ended else "known")
        key = None if given.key is UNSET else given.key
        labels = [told.label for told in self.find(given.prediction_id).labels]
        before = [one for one in labels if (one.source, one.key) == (given.source, key)]
        at = {one.known_at for one in before} if given.known_at is UNSET else {given.known_at}
        if any(one.value == given.value and one.known_at in at for one in before):
            return Labelled(given.prediction_id, "known")
        first = before[0]
        return Labelled(
            given.prediction_id,
            "conflict",
            f"key {key!r} came before with {first.value!r}, known at {first.known_at.isoformat()}",
            "send a revised label with a key of its own, or with none",
        )


def _same(stored: Prediction, made: _Made) -> bool:
    features: dict[str, FeatureValue] = msgspec.structs.asdict(made.features)
    return stored.features == features and stored.entity == made.entity


class _WithId(msgspec.Struct):
    prediction_id: str = ""


def _id_in(item: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(item, type=_WithId).prediction_id
    except msgspec.ValidationError:
        return ""
