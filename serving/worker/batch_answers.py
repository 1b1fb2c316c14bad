"""Look up a pipeline's batch answers in a worker."""

import asyncio
import logging
import mmap
import threading
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np

from headwater.features.batch.batch_files import AnswerTable
from headwater.infra.clock import Clock
from headwater.infra.settings import Settings
from headwater.infra.store.published_file import LOAD_ERRORS, Follower, reason_of
from headwater.serving.api.schemas import BatchAnswer, answer_of
from headwater.serving.published.published_batch import BatchFile, PublishedBatch
from headwater.spec.duration import duration
from headwater.spec.errors import NotFoundError, StorageError
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.batch import BatchPrediction, prediction_id

__all__ = ["BatchAnswers", "BatchStatus"]

_logger = logging.getLogger("headwater.serving")


class _Opened(NamedTuple):
    """The open files of a run: its answers, and the counts of their reads."""

    file: BatchFile
    table: AnswerTable
    reads: mmap.mmap

    def close(self) -> None:
        self.table.close()
        self.reads.close()


class BatchStatus(NamedTuple):
    """Counts and age of the answers of the newest run.

    Parameters
    ----------
    rows, read
        The number of answers, and of those that were looked up.
    age_s
        Seconds since they count as served.
    """

    rows: int
    read: int
    age_s: float


class BatchAnswers:
    """Look up answers of the newest run; :meth:`follow` opens a newer run between two requests.

    Parameters
    ----------
    pipeline, batch
        The pipeline, and its declared batch prediction.
    settings, clock
        The address of the home folder, and the time.
    """

    def __init__(
        self, pipeline: Pipeline, batch: BatchPrediction, settings: Settings, clock: Clock
    ) -> None:
        self.pipeline = pipeline
        self.batch = batch
        self._max_age = None if batch.max_age is None else duration(batch.max_age)
        self._clock = clock
        self._live = PublishedBatch(pipeline.name, settings)
        self._lock = threading.Lock()  # no table is closed while it is looked up
        self._opened: _Opened | None = None
        self._follower = Follower(self._live)

    def reload(self) -> None:
        """Open the run that was published last, if it is not open yet."""
        if not self._follower.is_due():
            return
        try:
            opened = self._open()
        except LOAD_ERRORS as error:
            if self._follower.failed(error):
                name, reason = self.pipeline.name, reason_of(error)
                _logger.warning("%s: the batch answers published before stay: %s", name, reason)
            return
        self._replace(opened)

    async def follow(self, every_s: float) -> None:
        """Open each run that is published, until cancelled."""
        while True:
            self.reload()
            await asyncio.sleep(every_s)

    def find(self, key: str) -> BatchAnswer | None:
        """Return a key's answer and count the read; None if the key is unknown or its answer too old.

        Raises
        ------
        StorageError
            If the table is damaged.
        """
        with self._lock:
            opened = self._opened
            row = None if opened is None else opened.table.find(key)
            if opened is None or row is None:
                return None
            age = self._age(opened.file.at)
            if self._max_age is not None and age > self._max_age:
                return None
            opened.reads[row.place] = 1
        run, version = opened.file.run, opened.file.version
        answer = answer_of(self.pipeline.task, prediction_id(run, key), row.output, version, "champion")
        return BatchAnswer(
            key=key,
            found="batch",
            id=answer.id,
            output=answer.output,
            version=version,
            role="champion",
            predicted_at=opened.file.at,
            age_s=age.total_seconds(),
            run=run,
            probabilities=answer.probabilities,
        )

    def missing(self, key: str) -> NotFoundError:
        """Build the error for a key without an answer."""
        young = "" if self.batch.max_age is None else f" of at most {self.batch.max_age}"
        return NotFoundError(
            f"the batch of {self.pipeline.name!r} has no answer{young} for key {key[:100]!r}",
            hint="POST it with features, and the online model answers"
            if self.batch.fall_through
            else "check the key; headwater batch status shows the runs",
        )

    def status(self) -> BatchStatus | None:
        """Return counts and age of the newest answers; None before the first run."""
        with self._lock:
            opened = self._opened
            if opened is None:
                return None
            read = int(np.count_nonzero(np.frombuffer(opened.reads, np.uint8)))
            return BatchStatus(opened.file.rows, read, self._age(opened.file.at).total_seconds())

    def close(self) -> None:
        """Close the files; the counts of reads stay."""
        self._replace(None)

    def _age(self, at: datetime) -> timedelta:
        return max(self._clock.now() - at, timedelta(0))  # clocks of two hosts may differ

    def _replace(self, opened: _Opened | None) -> None:
        with self._lock:
            before, self._opened = self._opened, opened
            if before is not None:
                before.close()

    def _open(self) -> _Opened | None:
        file = self._live.read()
        if file is None:
            return None
        with self._live.reads(file.run).open("r+b") as reads:
            try:
                mapped = mmap.mmap(reads.fileno(), file.rows)
            except ValueError as error:
                raise StorageError(
                    f"{reads.name} is cut: {error}",
                    hint=f"remove {self._live.path}, and the keeper makes both anew",
                ) from error
        try:
            return _Opened(file, AnswerTable(self._live.table(file.run)), mapped)
        except StorageError:
            mapped.close()
            raise
