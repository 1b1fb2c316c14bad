"""Score a table with the champion: all of it or nothing, once, whatever process is killed.

The run scores the table into storage first, a few rows at a time. The run counts only once all rows are
there: from then on it logs its predictions from the written files, under ids made of run and key, and
publishes them at the end. After a kill, the next run goes on with the written files; a repetition adds
nothing.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec
import polars as pl
from msgspec.structs import replace

from headwater.features.batch.batch_files import BatchFiles, TableWriter
from headwater.features.batch.batch_runs import BatchRun, BatchRuns
from headwater.infra.commit_points import reached
from headwater.infra.store.audit import check_note
from headwater.infra.store.lease import Lease, holding, renew
from headwater.infra.store.open_storage import open_storage
from headwater.learners.learner import Learner
from headwater.loop.batch.batch_source import Chunk, read_chunks
from headwater.loop.binding import Bound
from headwater.loop.declaring.changes import check_champion
from headwater.spec.data.records import Output, Prediction
from headwater.spec.data.scalars import plain_output
from headwater.spec.errors import (
    DeclarationError,
    HeadwaterError,
    NonFiniteError,
    NotEnoughError,
    NotReadyError,
)
from headwater.spec.outputs import misfit_of_output, where_to_look
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.batch import BatchPrediction, is_due, prediction_id

__all__ = ["batch_predict", "batch_runs", "check_declared"]

_LONGEST = 300  # characters of an output that an error quotes
_RECORDED_TOGETHER = 1_000
"""Records to one sync: between two, the workers that serve have their turn at the inbox."""


def batch_predict(bound: Bound, *, by: str = "headwater batch predict") -> BatchRun:
    """Score the table that a pipeline declares, log the predictions, and publish them by key.

    If a process ended between staging and publishing, the call finishes that run. It begins another run
    only if one was due since.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    by
        Who asks, for the record.

    Returns
    -------
    BatchRun
        The run that is published now.

    Raises
    ------
    DeclarationError
        If the pipeline declares no batch prediction, or differs from its records or its champion.
    NotReadyError
        If no version is champion.
    SchemaError, NonFiniteError, NotFoundError, NotEnoughError
        If the table does not fit, does not exist, or is empty; the stores stay as they were.
    IdentityError
        If a store belongs to another log.
    BusyError, FencedError
        If another process works on it, or took over.
    StorageError, DigestError
        If a store is away, or the champion's state does not hold.
    """
    batch = check_declared(bound.pipeline)
    check_note(by)
    bound.check()
    check_champion(bound)
    with holding(bound.database, bound.clock, f"batch/{bound.pipeline.name}") as lease:
        work = _Work(bound, batch, lease, by)
        work.clear()
        staged = work.runs.in_state("staged")
        finished = [work.finish(run) for run in staged]
        if finished and not is_due(batch, finished[-1].at, bound.clock.now()):
            return finished[-1]
        return work.finish(work.stage())


def batch_runs(bound: Bound) -> BatchRuns:
    """Return the runs of a pipeline."""
    return BatchRuns(bound.log.pipeline_id, bound.database)


def check_declared(pipeline: Pipeline) -> BatchPrediction:
    """Return the pipeline's declaration of batch prediction.

    Raises
    ------
    DeclarationError
        If there is none.
    """
    if pipeline.batch is None:
        raise DeclarationError(
            f"pipeline {pipeline.name!r} scores no table",
            hint='declare batch=BatchPrediction(source=ParquetSource("people.parquet"), key="person")',
        )
    return pipeline.batch


class _Work:
    """The steps of a run, under the pipeline's lease."""

    def __init__(self, bound: Bound, batch: BatchPrediction, lease: Lease, by: str) -> None:
        self.runs = batch_runs(bound)
        self._bound = bound
        self._batch = batch
        self._lease = lease
        self._by = by
        self._storage = open_storage(bound.settings)
        self._files = BatchFiles(self._storage, bound.pipeline.name)
        self._local = bound.settings.root / "batch" / f"{bound.pipeline.name}.sqlite"

    def clear(self) -> None:
        """Remove the files of runs whose process ended before they were staged."""
        for run in self.runs.in_state("begun"):
            self._undo(run)

    def stage(self) -> BatchRun:
        """Score the whole table into storage; if that fails, remove its files."""
        registry = self._bound.registry
        champion = registry.champion()
        if champion is None:
            raise NotReadyError(
                f"pipeline {self._bound.pipeline.name!r} has no version to predict with",
                hint="train one: headwater train",
            )
        learner = registry.store.learner(champion, self._bound.pipeline.model)
        self._bound.log.archive.claim.take()
        now, token = self._bound.clock.now(), secrets.token_hex(4)
        run = self.runs.begin(token, champion.number, now, self._by, self._lease)
        reached("batch.after_begin")
        staged_whole = False
        try:
            staged = self._score(run, learner)
            reached("batch.before_stage")
            self.runs.advance(staged, self._lease)
            staged_whole = True
        finally:
            if not staged_whole:  # whatever the fault; if a store is away, the next run removes the rest
                with suppress(HeadwaterError):
                    self._undo(run)
        reached("batch.after_stage")
        return staged

    def finish(self, run: BatchRun) -> BatchRun:
        """Log the staged predictions, and publish them; a repetition adds nothing."""
        recorder = self._bound.log.recorder
        for part in range(run.parts):
            renew(self._bound.database, self._bound.clock, self._lease)
            frame = self._files.read_part(run.id, part)
            for rows in frame.iter_slices(_RECORDED_TOGETHER):
                predictions = _predictions(self._bound.pipeline, self._batch.key, run, rows)
                recorder.inbox.append([recorder.prediction(each) for each in predictions], "record")
                reached("batch.between_records")
        reached("batch.before_publish")
        published = replace(run, state="published", published_at=self._bound.clock.now())
        self.runs.advance(published, self._lease)
        reached("batch.after_publish")
        self._remove_old_files(published)
        return published

    def _score(self, run: BatchRun, learner: Learner) -> BatchRun:
        pipeline, parts = self._bound.pipeline, 0
        with TableWriter(self._local) as table:
            for chunk in read_chunks(pipeline, self._batch, self._storage):
                renew(self._bound.database, self._bound.clock, self._lease)
                outputs = _outputs(learner, chunk)
                table.add(chunk.keys.to_list(), outputs)
                self._files.write_part(run.id, parts, _part(run, chunk, outputs))
                reached("batch.after_part")
                parts += 1
            if not parts:
                raise NotEnoughError(
                    f"the table of {pipeline.name!r} has no rows",
                    hint="check the job that should have filled it; the answers of the run before stay",
                )
            sha256 = table.finish()
            self._files.write_table(run.id, table.path)
            return replace(run, state="staged", rows=table.rows, parts=parts, sha256=sha256)

    def _undo(self, run: BatchRun) -> None:
        self._files.remove(run.id)
        self.runs.remove(run, self._lease)

    def _remove_old_files(self, newest: BatchRun) -> None:
        """Remove the files of published runs beyond the newest that the pipeline keeps."""
        for run in self.runs.in_state("published"):
            if run.kept and run.number <= newest.number - self._batch.keep:
                self._files.remove(run.id)
                self.runs.advance(replace(run, kept=False), self._lease)


def _outputs(learner: Learner, chunk: Chunk) -> list[Output]:
    """Predict some rows.

    Raises
    ------
    NonFiniteError
        If the version answers a row with no output of its task, such as NaN.
    """
    outputs = [plain_output(output) for output in learner.predict(chunk.features)]
    for row, (key, output) in enumerate(zip(chunk.keys, outputs, strict=True)):
        why = misfit_of_output(learner.schema.task, output)
        if why is not None:
            raise NonFiniteError(
                f"the version answers key {key!r} with {str(output)[:_LONGEST]}, which {why}",
                hint=where_to_look(chunk.features.row(row, named=True)),
            )
    return outputs


def _part(run: BatchRun, chunk: Chunk, outputs: Sequence[Output]) -> pl.DataFrame:
    """Make the rows of a file: keys, outputs, version, time and features. Pure."""
    encoded = [
        msgspec.json.encode(output).decode() if isinstance(output, dict) else output
        for output in outputs
    ]
    keys = chunk.keys.to_list()
    return pl.DataFrame(
        {
            "key": chunk.keys,
            "prediction_id": [prediction_id(run.id, key) for key in keys],
            "output": encoded,
            "version": pl.repeat(run.version, len(keys), eager=True),
            "served_at": pl.repeat(run.at, len(keys), dtype=pl.Datetime("us", "UTC"), eager=True),
            "features": chunk.features.to_struct("features"),
        }
    )


def _predictions(
    pipeline: Pipeline, key_name: str, run: BatchRun, frame: pl.DataFrame
) -> Iterator[Prediction]:
    """Turn the rows of a file into records, the same each time. Pure."""
    by_class = pipeline.task == "multiclass"
    columns = (frame[name].to_list() for name in ("key", "prediction_id", "output", "features"))
    for key, id_, encoded, features in zip(*columns, strict=True):
        yield Prediction(
            id=id_,
            features=features,
            output=msgspec.json.decode(encoded, type=dict[str, float]) if by_class else encoded,
            served_at=run.at,
            version=run.version,
            entity={key_name: key},
        )
