"""Copy the answers of the newest batch run to this host, and count how many were read."""

import logging
from collections.abc import Sequence
from typing import Self

from headwater.features.batch.batch_files import BatchFiles, sha256_of
from headwater.features.batch.batch_runs import BatchRun, BatchRuns
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.published_file import replacing
from headwater.loop.batch.batch_predict import batch_runs
from headwater.loop.binding import Bound
from headwater.serving.published.published_batch import BatchFile, PublishedBatch
from headwater.serving.published.repeating import Repeating
from headwater.spec.errors import DigestError, StorageError

__all__ = ["BatchPublisher"]

_LOOK_S = 1.0
_logger = logging.getLogger("headwater.keeper")


class BatchPublisher:
    """Copy the newest answers to this host, and count reads, in a thread of the keeper's process.

    It has its own thread, since copying a long table must not delay a swap. It is used in a ``with``
    block.

    Parameters
    ----------
    bounds
        The pipelines with their stores; those that declare no batch are skipped.
    """

    def __init__(self, bounds: Sequence[Bound]) -> None:
        self._each = [_BatchFollower(bound) for bound in bounds if bound.pipeline.batch is not None]
        steps = {f"{one.name}: the batch answers published before stay": one.step for one in self._each}
        self._repeating = Repeating("batch", _LOOK_S, steps, _logger)

    def __enter__(self) -> Self:
        self._repeating.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._repeating.__exit__(*error)
        self._repeating.take_each()  # what was read since

    def step(self) -> None:
        """Publish a newer run of each pipeline, and store how many answers were read.

        Raises
        ------
        IdentityError
            If storage or the live folder belongs to another log.
        StorageError, DigestError
            If a run's table cannot be read, or was changed: the run published before stays.
        """
        for one in self._each:
            one.step()


class _BatchFollower:
    """Copies and counts the newest answers of one pipeline."""

    def __init__(self, bound: Bound) -> None:
        self.name = bound.pipeline.name
        self._runs: BatchRuns = batch_runs(bound)
        self._files = BatchFiles(open_storage(bound.settings), self.name)
        self._claim = bound.log.archive.claim
        self._live = PublishedBatch(self.name, bound.settings)
        self._live.folder.mkdir(parents=True, exist_ok=True)
        self._counted: dict[str, int] = {}

    def step(self) -> None:
        run, published = self._runs.serving(), self._published()
        self._count()
        if run is not None and (published is None or published.run != run.id):
            self._copy_answers(run)
            self._live.keep([run.id, *([] if published is None else [published.run])])

    def _published(self) -> BatchFile | None:
        try:
            published = self._live.read()
        except StorageError:
            return None
        return published if published is not None and self._live.table(published.run).exists() else None

    def _copy_answers(self, run: BatchRun) -> None:
        self._claim.check()
        path = self._live.table(run.id)
        with replacing(path) as draft:
            self._files.fetch_table(run.id, draft)
            if sha256_of(draft) != run.sha256:
                raise DigestError(
                    f"the table of batch run {run.id} was changed after it was written",
                    hint=f"look into {self._files.address(run.id)}, then headwater batch predict",
                )
            self._live.make_reads(run.id, run.rows)
        self._live.publish(BatchFile(run=run.id, version=run.version, at=run.at, rows=run.rows))
        fields = {"pipeline": self.name, "run": run.id, "version": run.version}
        _logger.info("%s: answers of batch run %s", self.name, run.id, extra={"json_fields": fields})

    def _count(self) -> None:
        """Store how many answers were read, of the run before too: a worker may still have it."""
        for run, read in self._live.count_reads().items():
            if read != self._counted.get(run):
                self._runs.count_read(int(run.partition("-")[0]), read)
                self._counted[run] = read
