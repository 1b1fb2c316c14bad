"""The feature log of one pipeline: record predictions, label them when their truth is known."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

import polars as pl

from headwater.features.identity.belonging import check_absent
from headwater.features.label_queue.label_queue import LabelQueue
from headwater.features.label_queue.question_selection import STEP_RECORDS
from headwater.features.read.archive import COMPACT_FROM_FILES, Archive, Archived
from headwater.features.read.frames import EXAMPLE, Frames
from headwater.features.read.repository import LogCounts, LogRepository, register
from headwater.features.read.same_rows import SameRows
from headwater.features.read.shadow_outputs import ShadowOutputs
from headwater.features.record.declared import Declared
from headwater.features.record.encoder import RecordEncoder, open_inbox
from headwater.features.record.inbox import Inbox, inbox_file
from headwater.features.sequence.sequencer import BATCH_ENTRIES, Sequencer
from headwater.infra.clock import Clock, SystemClock, from_us, to_us
from headwater.infra.commit_points import reached
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.identity import identity_of
from headwater.infra.store.storage import Storage
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import NotFoundError, SchemaError, StorageError, TableError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import OffsetRange

__all__ = ["FeatureLog", "LogCounts"]

_CHUNK = 50_000


class FeatureLog:
    """The durable log of one pipeline's predictions and labels, and of the examples they make.

    Parameters
    ----------
    pipeline
        Whose log.
    settings
        Where it is kept.
    clock
        Gives the time of receipt; the machine's if none is given.
    database
        An open operational database, to share one; opened from the settings if none is given.
    compact_from_files
        How many files a table of the archive has at least before they are compacted.

    Raises
    ------
    StorageError
        If a store cannot be opened.
    IdentityError, IntegrityError
        If inbox and database are not of one log, or the inbox has lost records.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings,
        clock: Clock | None = None,
        database: Database | None = None,
        *,
        compact_from_files: int = COMPACT_FROM_FILES,
    ) -> None:
        self.pipeline = pipeline
        self.clock = clock or SystemClock()
        self.database = database or Database(settings.operational_url)
        check_absent(self.database, pipeline.name, inbox_file(pipeline.name, settings))
        self.inbox = open_inbox(pipeline, settings)
        self.pipeline_id = _registered(self.database, pipeline, self.inbox)
        self.identity = identity_of(self.database, self.pipeline_id)
        self.archive = Archive(Storage(settings), self.identity, compact_from_files=compact_from_files)
        self._stored = LogRepository(self.database, self.pipeline_id)
        self._same_rows = SameRows(self.archive, self._stored)
        self.recorder = RecordEncoder(pipeline, self.inbox, self.clock)
        self.shadows = ShadowOutputs(self.database, self.pipeline_id)
        self.declared = Declared(pipeline, self.pipeline_id, self.inbox, self.database, self.clock)
        self._frames = Frames(self.declared.readable())

    def agree(self, *, fresh: bool = False) -> None:
        """Check that the pipeline's declaration is in force, or put it in force if it may be.

        Called before anything is sequenced, collected, learned or served. Recording and labelling ask
        the same of task and features; reading asks nothing.

        Parameters
        ----------
        fresh
            Whether a new line is asked for: ``headwater train --fresh``.

        Raises
        ------
        ChangedError
            If records or versions are held by what differs; the error names it. Nothing is changed then.
        BusyError, ConflictError
            If another process sequences while the label rule is to change, or declares anew.
        """
        if self.declared.agree(fresh=fresh):
            self._frames = Frames(self.declared.readable())

    def record(self, predictions: Sequence[Prediction]) -> int:
        """Log predictions with the features they used; durable when this returns.

        Parameters
        ----------
        predictions
            In the order in which they were served.

        Returns
        -------
        int
            How many were new; one that was recorded before with the same payload is not.

        Raises
        ------
        ChangedError
            If task or features are not those of what was recorded before; nothing is kept then.
        SchemaError
            If features or an output do not fit the pipeline; nothing is kept then.
        ConflictError
            If an id was recorded with another payload; nothing is kept then.
        StorageError
            If the disk refuses; nothing is kept then.
        """
        self._agree_once()
        now_us = self.recorder.now_us()
        make = self.recorder.prediction
        return self.inbox.append([make(p, now_us) for p in predictions], "record")

    def label(self, labels: Sequence[Label]) -> int:
        """Log labels; durable when this returns. A label may come before its prediction.

        Parameters
        ----------
        labels
            In the order in which they became known.

        Returns
        -------
        int
            How many were new.

        Raises
        ------
        SchemaError
            If a value does not fit the task; nothing is kept then.
        ConflictError
            If a key came before with another value; nothing is kept then.
        StorageError
            If the disk refuses; nothing is kept then.
        """
        self._agree_once()
        now_us = self.recorder.now_us()
        make = self.recorder.label
        return self.inbox.append([make(label, now_us) for label in labels], "label")

    def import_history(self, history: Iterable[tuple[Prediction, Label | None]]) -> int:
        """Log records of elsewhere; each counts as received at its own time.

        All of it is kept or none. Predictions and labels are put in the order of their times, so
        that the examples have the order that a log kept at the time would have given them.

        Returns
        -------
        int
            How many records were new.

        Raises
        ------
        SchemaError, ConflictError, StorageError
            As for :meth:`record` and :meth:`label`; SchemaError also if a time lies after the clock's
            present: deadlines would not fall due before then, for any record.
        """
        self._agree_once()
        now_us = to_us(self.clock.now())
        entries = []
        for prediction, label in history:
            id_ = prediction.id
            served_us = _past(prediction.served_at, now_us, f"prediction {id_!r} was served")
            entries.append(self.recorder.prediction(prediction, served_us))
            if label is not None:
                known_us = _past(label.known_at, now_us, f"the label of {id_!r} became known")
                entries.append(self.recorder.label(label, known_us))
        entries.sort(key=lambda entry: (entry.received_at_us, entry.kind))
        return self.inbox.append(entries, "record")

    def sequencer(self, *, batch_entries: int = BATCH_ENTRIES) -> Sequencer:
        """Make the sequencer of this log, to be used in a ``with`` block.

        Parameters
        ----------
        batch_entries
            How many entries of the inbox one transaction takes at most.

        Raises
        ------
        ChangedError
            As for :meth:`agree`.
        """
        self.agree()
        agreed = self.declared.check
        return Sequencer(
            self.pipeline,
            self.pipeline_id,
            self.inbox,
            self.database,
            self.clock,
            agreed,
            batch_entries=batch_entries,
        )

    def queue(self, *, step_records: int = STEP_RECORDS) -> LabelQueue:
        """Make the label queue of this log.

        Parameters
        ----------
        step_records
            How many records one transaction looks at when the queue fills.

        Raises
        ------
        DeclarationError
            If the pipeline asks nobody.
        """
        return LabelQueue(
            self.pipeline,
            self.pipeline_id,
            self.recorder,
            self.database,
            self.clock,
            step_records=step_records,
        )

    def collect(self) -> int:
        """Write the sequenced records to the archive, range by range.

        Returns
        -------
        int
            How many examples were written.

        Raises
        ------
        ChangedError
            As for :meth:`agree`.
        ConflictError
            If another process collects at the same time.
        IdentityError
            If a table, or the pipeline's name on the storage, belongs to another log.
        TableError, StorageError
            If a table cannot be read or written; the ranges already written stay.
        """
        self.agree()
        position, offset = self._stored.ends()
        self._archive("predictions", position)
        self._archive("labels", position)
        reached("collect.between_tables")
        return self._archive("examples", offset)

    def check_archive(self) -> None:
        """Refuse an archive of another log, or one that a copy of the home went on with.

        Whatever else is wrong is left to whoever reads or writes.

        Raises
        ------
        IdentityError
            If it is.
        """
        self.archive.check()
        with suppress(TableError, StorageError):
            self._same_rows.check_all(self._frames)

    def stop(self) -> int:
        """Return the offset that the next example will have."""
        return self._stored.ends()[1]

    def offset_at(self, moment: datetime) -> int:
        """Return the first offset emitted at `moment` or later; :meth:`stop` if there is none."""
        return self._stored.first_emitted(to_us(moment), self.stop())

    def examples(
        self, start: int = 0, stop: int | None = None, columns: Collection[str] = EXAMPLE
    ) -> pl.DataFrame:
        """Return the examples of a range of offsets, which never change.

        Parameters
        ----------
        start, stop
            From `start` up to, but not including, `stop`; None means up to the newest.
        columns
            Which columns to read; all if not given.

        Returns
        -------
        polars.DataFrame
            A row an example, by rising offset: ``offset``, ``label``, ``features`` (a struct),
            ``prediction_id``, ``served_at``, ``known_at`` and ``emitted_at`` (UTC), ``version``,
            ``role``, ``propensity``, ``output``, ``source``, ``revision``, ``late``, ``supersedes``,
            ``entity`` and ``ages_s`` (JSON; null if nothing was looked up).

        Raises
        ------
        NotFoundError
            If the range is not there yet.
        TableError, StorageError
            If the archive cannot be read.
        """
        end = self.stop()
        stop = end if stop is None else stop
        if not 0 <= start <= stop <= end:
            raise NotFoundError(
                f"pipeline {self.pipeline.name!r} has no examples [{start}, {stop}); it has [0, {end})",
                hint="ask for a range within, or run headwater collect first",
            )
        archived = min(stop, self._same_rows.check("examples", self._frames)) if start < stop else start
        if archived <= start:
            return self._frames.examples(self._stored.examples(start, stop), columns)
        schema = self._frames.schema(columns)
        old = self.archive["examples"].read(OffsetRange(start, archived), schema).select(list(columns))
        if archived == stop:
            return old
        new = self._frames.examples(self._stored.examples(archived, stop), columns)
        return pl.concat([old, new], how="vertical_relaxed")

    def position_at(self, moment: datetime) -> int:
        """Return the position from which on predictions were recorded at `moment` or later."""
        moment_us, (end, _) = to_us(moment), self._stored.ends()

        def after(position: int) -> bool:
            recorded = self._stored.recorded(position)
            return recorded is None or recorded[1] >= moment_us

        return bisect_left(range(end), True, key=after)

    def position_after(self, position: int, predictions: int) -> int | None:
        """Return the position behind the next `predictions` predictions; None if there are fewer."""
        recorded = self._stored.recorded(position, predictions - 1)
        return None if recorded is None else recorded[0] + 1

    def recorded_at(self, position: int) -> datetime | None:
        """Return when the prediction at `position`, or the next, was recorded; None behind the last."""
        recorded = self._stored.recorded(position)
        return None if recorded is None else from_us(recorded[1])

    def positions(self) -> int:
        """Return the position that the next record will have."""
        return self._stored.ends()[0]

    def count_predictions(self, start: int, stop: int) -> int:
        """Count the predictions of a range of positions."""
        return self._stored.count(start, stop)

    def served(
        self,
        start: int,
        stop: int,
        columns: Collection[str] = ("version", "role", "output", "features"),
        *,
        shadows: bool = False,
    ) -> pl.DataFrame:
        """Return the predictions of a range of positions, with or without labels.

        A range is found by :meth:`position_at` or :meth:`position_after`; times of receipt never fall
        as positions rise.

        Parameters
        ----------
        start, stop
            From `start` up to, but not including, `stop`.
        columns
            Which ones of a prediction to read.
        shadows
            Give a row, too, for each version that predicted beside the one that answered: with that
            version, its output, the role ``"shadow"``, and all else as the prediction has it.

        Returns
        -------
        polars.DataFrame
            A row a prediction, in the order recorded: ``position``, ``recorded_at`` (UTC), the wanted
            columns, and ``label``: the newest revision, or null if none came, or the first came
            after the wait.
        """
        rows = self._stored.predictions(start, stop)
        frame = self._frames.served(rows, self._stored.labels_of(start, stop), list(columns))
        return self._frames.beside(frame, self.shadows.between(start, stop)) if shadows else frame

    def superseded(self, start: int, stop: int) -> list[int]:
        """Return the offsets of a range whose label a newer example of the range corrects, rising."""
        return self._stored.superseded(start, stop)

    def corrections(self, start: int, stop: int) -> list[int]:
        """Return the offsets of a range whose example corrects an older one, rising."""
        return self._stored.corrections(start, stop)

    def emitted_us(self, start: int, stop: int) -> list[int]:
        """Return the emission times of a range, in microseconds since 1970, UTC, in offset order."""
        return self._stored.emitted(start, stop)

    @contextmanager
    def one_sync(self) -> Iterator[None]:
        """Write all records and labels of the block in one synced transaction.

        It is durable when the block ends; an error within keeps none of it.
        """
        with self.inbox.one_sync():
            yield

    def predictions(self) -> pl.DataFrame:
        """Return every sequenced prediction, from the database: for tables and tests of modest size."""
        return self._frames.predictions(self._stored.predictions(0, self._stored.ends()[0]))

    def counts(self) -> LogCounts:
        """Count what the log holds."""
        position = self._stored.inbox_position(self.inbox.identity.inbox)
        return self._stored.counts(
            unsequenced=self.inbox.count_after(position), archived=self.archive["examples"].stop()
        )

    def close(self) -> None:
        """Close the inbox; the database is closed by whoever opened it."""
        self.inbox.close()

    def _agree_once(self) -> None:
        if not self.declared.agreed:
            self.declared.agree_to_record()
            self._frames = Frames(self.declared.readable())

    def _archive(self, name: Archived, stop: int) -> int:
        first = start = self._same_rows.check(name, self._frames)
        if start > stop:  # unless another process sequenced and archived just now
            self._same_rows.check_behind(name, start)
            return 0
        frames = Frames(self.declared.archived()) if self.declared.stored.dropped else self._frames
        while start < stop:
            end = min(start + _CHUNK, stop)
            if name == "predictions":
                frame = frames.predictions(self._stored.predictions(start, end))
            elif name == "labels":
                frame = frames.labels(self._stored.labels(start, end))
            else:
                frame = frames.examples(self._stored.examples(start, end), EXAMPLE)
            self.archive[name].append(frame, start, end)
            self._same_rows.written(name, end)
            start = end
        return stop - first


def _registered(database: Database, pipeline: Pipeline, inbox: Inbox) -> int:
    try:
        return register(database, pipeline, inbox)
    except BaseException:
        inbox.close()
        raise


def _past(moment: datetime, now_us: int, event: str) -> int:
    """Return the microseconds of a moment of the past; refuse one of the future."""
    moment_us = to_us(moment)
    if moment_us > now_us:
        raise SchemaError(
            f"{event} at {moment:%Y-%m-%d %H:%M:%S%z}, which is after the present",
            hint="check the time's zone and unit; leave out what has not happened yet",
        )
    return moment_us
