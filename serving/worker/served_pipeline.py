"""Serve one pipeline in a worker: predict, log and wait, label, look up."""

import asyncio
import logging
from typing import ClassVar

from msgspec.structs import replace

from headwater.features.record.encoder import RecordEncoder, open_inbox
from headwater.infra.clock import Clock
from headwater.infra.settings import Settings
from headwater.infra.store.published_file import LOAD_ERRORS, Follower, reason_of
from headwater.serving.isolation.isolated_versions import IsolatedVersions
from headwater.serving.metrics.service_metrics import PipelineMetrics
from headwater.serving.published.alarms import AlarmKind, KeeperStatus, KeeperStatusFile, WorkerAlarms
from headwater.serving.published.published_models import PublishedModels, ServingFile
from headwater.serving.worker.active_versions import ActiveVersions, LoadedVersion, VersionLoader
from headwater.serving.worker.group_commit import GroupCommit
from headwater.serving.worker.isolated_models import IsolatedModel, IsolatedModels
from headwater.serving.worker.label_recorder import LabelRecorder
from headwater.serving.worker.pair import Pair, PairLoader
from headwater.serving.worker.predictor import Predictor
from headwater.spec.errors import HeadwaterError, NotReadyError, few
from headwater.spec.pipeline import Pipeline

__all__ = ["ServedPipeline"]

_logger = logging.getLogger("headwater.serving")


class ServedPipeline:
    """One pipeline in one process: its predictor, its labels, and the versions that they use.

    :func:`headwater.serving.process.app.create_app` makes it when the process starts. :meth:`follow`
    runs beside the requests, and swaps versions between two of them.

    Parameters
    ----------
    pipeline, settings, clock
        The pipeline, the address of its inbox and published states, and the time.
    metrics
        Counts predictions and labels.

    Attributes
    ----------
    predictor, labels
        Answer requests, and record labels.
    recorder
        Encodes labels, and finds records.
    serving
        The publication that serves; None before the first.
    swap_failure
        Why the newest publication does not serve, or not whole.
    """

    commits: ClassVar[type[GroupCommit]] = GroupCommit
    predictors: ClassVar[type[Predictor]] = Predictor
    label_recorders: ClassVar[type[LabelRecorder]] = LabelRecorder

    def __init__(
        self, pipeline: Pipeline, settings: Settings, clock: Clock, metrics: PipelineMetrics
    ) -> None:
        self.pipeline = pipeline
        self.metrics = metrics
        self.serving: ServingFile | None = None
        self.swap_failure: str | None = None
        self.recorder = RecordEncoder(pipeline, open_inbox(pipeline, settings), clock)
        self.recorder.declare()
        self._clock = clock
        self._live = PublishedModels(pipeline, settings)
        self._keeper = KeeperStatusFile(pipeline.name, settings)
        self._follower = Follower(self._live)
        self._models = IsolatedModels(pipeline, settings, self._live)
        self._isolated = IsolatedVersions(pipeline.name, settings)
        self._loader = VersionLoader(
            pipeline, self._live, self._models, self._isolated, self._leave_loop
        )
        self._alarms = WorkerAlarms()
        serving = pipeline.serving
        window_s = serving.window_ms / 1_000 if serving.durability == "batch" else 0.0
        self._commit = self.commits(self.recorder.inbox, serving.most_waiting, window_s)
        self._pairs = PairLoader(self._loader, self.recorder, settings, clock, metrics)
        self.predictor = self.predictors(self._pairs.of(pipeline), self._commit, metrics)
        self.labels = self.label_recorders(self.recorder, self._commit, metrics)

    async def follow(self, every_s: float, after: "asyncio.Task[None]") -> None:
        """Load published versions and tables whenever they change, until cancelled.

        Parameters
        ----------
        every_s
            Seconds from one look to the next.
        after
            The first load, which may not have ended yet.
        """
        await after
        while True:
            await self.reload()
            await self._commit.try_disk()
            await self._models.try_again()
            self.sample()
            await asyncio.sleep(every_s)

    async def reload(self) -> None:
        """Load versions and tables if another publication is there, or if the last load is tried again.

        If a state fails to load, the one before goes on serving, and :attr:`swap_failure` says why.
        """
        if self._isolated.changed() or self._follower.is_due():
            await self._swap()
        if (tables := self.predictor.pair.tables) is not None:
            await tables.follow(self._clock.now())

    def keeper_status(self) -> KeeperStatus:
        """Return the last status of the keeper, with the alarms of this worker: its disk, its models."""
        status = self._keeper.read()
        return replace(status, alarms=(*status.alarms, *self._alarms.held))

    def isolated(self) -> dict[str, str]:
        """Return why versions that answer here predict in a process of their own, by number."""
        versions = {} if self.active is None else self.active.versions
        return {
            number: self._loader.why_isolated(one.state)
            for number, one in versions.items()
            if isinstance(one.model, IsolatedModel)
        }

    def sample(self) -> None:
        """Set the gauges to their present values, and note since when faults hold."""
        faults: dict[AlarmKind, HeadwaterError | None] = {
            "disk": self._commit.refused,
            "model": self._models.recent_fault,
            "clock": self.recorder.receipts.fault(),
            "declaration": self.predictor.pair.misfit,
        }
        self._alarms.note(faults, self._clock.now())
        learned_to = 0 if self.champion is None else self.champion.learned_to
        self.metrics.sample(self._commit.waiting, self._commit.syncs, learned_to)

    def _leave_loop(self, version: str, reason: str) -> IsolatedModel | None:
        """Let a version predict in a process of its own from the next request on, in every worker."""
        pair = self.predictor.pair
        active = pair.active
        loaded = None if active is None else active.versions.get(version)
        if active is None or loaded is None:
            return None
        model = self._loader.isolate(loaded.state)
        moved = active.with_version(loaded._replace(model=model))
        self.predictor.pair = pair.answered_by(moved, pair.pairing)
        self._isolated.add(version, reason)
        what = f"version {version} predicts in a process of its own from now on: {reason}"
        fields = {"pipeline": self.pipeline.name, "version": version}
        _logger.warning("%s", what, extra={"json_fields": fields})
        return model

    async def _swap(self) -> None:
        """Load the published versions beside the serving ones; serve them from the next request on."""
        try:
            replaced, serving = self.predictor.pair, await asyncio.to_thread(self._live.read)
            if serving is None or not serving.states:
                return
            pair = await self._pairs.load(serving, replaced)
        except LOAD_ERRORS as error:
            self._note_failure("the serving version stays", error)
            self.predictor.why_none = self.swap_failure
            return
        self.predictor.pair = pair
        _log_swap(self.pipeline.name, replaced, pair, serving.epoch)
        replaced.give_way(pair)
        self.serving, self.swap_failure = serving, None
        for reason in self._loader.left_out:
            self._note_failure("a version is left out", reason)

    def _note_failure(self, consequence: str, error: Exception) -> None:
        """Show why a state did not load; log and count it once for each publication."""
        self.swap_failure = reason_of(error)
        if self._follower.failed(error):
            self.metrics.swap_failed()
            fields = {"pipeline": self.pipeline.name, "code": type(error).__name__}
            _logger.warning("%s: %s", consequence, self.swap_failure, extra={"json_fields": fields})

    async def close(self) -> None:
        """Write the records that wait for their sync, and close the inbox."""
        await self._models.close()
        await self._commit.close()
        self.recorder.inbox.close()
        if (tables := self.predictor.pair.tables) is not None:
            tables.close()

    def fault(self) -> HeadwaterError | None:
        """Return why a prediction would not be answered now; None if it would.

        It is a NotReadyError if no version serves, or a table was never materialised; a StorageError if
        the disk refused the last record, until it takes one; a ModelError if the process of an isolated
        champion ended and does not answer yet; an OverloadedError if too many wait.
        """
        if self.champion is None:
            return NotReadyError(
                f"pipeline {self.pipeline.name!r} has no version that serves",
                hint="train one: headwater train",
            )
        tables = self.predictor.pair.tables
        missing_table = None if tables is None else tables.missing_table()
        if missing_table is not None:
            return NotReadyError(
                f"table {missing_table!r} of {self.pipeline.name!r} was never materialised",
                hint="materialise it: headwater features materialise",
            )
        model = self._models.fault() if isinstance(self.champion.model, IsolatedModel) else None
        return model or self._commit.fault()

    @property
    def active(self) -> ActiveVersions | None:
        """The versions that answer; None before the first."""
        return self.predictor.pair.active

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


def _log_swap(pipeline: str, before: Pair, now: Pair, epoch: int) -> None:
    """Log that another version serves, if it is another, and by which declaration."""
    replaced, version = (
        None if one.active is None else one.active.champion.version for one in (before, now)
    )
    if replaced != version:
        fields = {"pipeline": pipeline, "version": version, "epoch": epoch, "replaced": replaced}
        _logger.info("another version serves", extra={"json_fields": fields})
    if now.pipeline != before.pipeline:
        names = few(now.pipeline.feature_names)
        _logger.warning("%s: answers by another declaration from now on: %s", pipeline, names)
