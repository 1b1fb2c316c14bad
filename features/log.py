"""The feature log of one pipeline: record predictions, label them when their truth is known."""

from datetime import timedelta

from headwater.features.identity.belonging import check_absent
from headwater.features.label_queue.label_queue import LabelQueue
from headwater.features.label_queue.question_selection import STEP_RECORDS
from headwater.features.read.archive import COMPACT_FROM_FILES, Archive
from headwater.features.read.archive_writer import ArchiveWriter
from headwater.features.read.compaction import KEEP_REPLACED
from headwater.features.read.file_seals import FileSeals
from headwater.features.read.log_reader import LogReader
from headwater.features.read.repository import LogCounts, register
from headwater.features.record.declared import Declared
from headwater.features.record.encoder import open_inbox
from headwater.features.record.inbox import Inbox, inbox_file
from headwater.features.record.log_writer import LogWriter
from headwater.features.sequence.new_classes import NewClasses
from headwater.features.sequence.sequencer import BATCH_ENTRIES, Sequencer
from headwater.infra.clock import Clock, SystemClock, to_us
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.identity import identity_of
from headwater.infra.store.open_storage import open_storage
from headwater.spec.duration import duration
from headwater.spec.pipeline import Pipeline

__all__ = ["FeatureLog", "LogCounts"]


class FeatureLog(LogWriter, LogReader):
    """The durable log of one pipeline's predictions and labels, and of the examples they make.

    It opens the stores, checks that they are of one log, and makes what sequences, collects and asks.
    Functions that only write or only read it say so: they take a :class:`LogWriter` or a
    :class:`LogReader`.

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
    compact_from_files, keep_replaced
        How many files a table of the archive has at least before they are compacted, and how long the
        files that are replaced by that stay.

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
        keep_replaced: timedelta = KEEP_REPLACED,
    ) -> None:
        clock = clock or SystemClock()
        database = database or Database(settings.operational_url)
        check_absent(database, pipeline.name, inbox_file(pipeline.name, settings))
        inbox = open_inbox(pipeline, settings)
        id_ = _registered(database, pipeline, inbox)
        self.identity = identity_of(database, id_)
        archive = Archive(
            open_storage(settings),
            self.identity,
            FileSeals(database, id_),
            compact_from_files=compact_from_files,
            keep_replaced=keep_replaced,
        )
        declared = Declared(pipeline, id_, inbox, database)
        LogWriter.__init__(self, pipeline, inbox, declared, clock)
        LogReader.__init__(self, pipeline, id_, declared, database, archive)
        self.archive_writer = ArchiveWriter(self)
        self.new_classes = NewClasses(pipeline.name, id_, database, clock)

    def agree(self, *, fresh: bool = False) -> None:
        """Check that the pipeline's declaration is in force, or put it in force if it may be.

        Called before anything is sequenced, collected, learned or served. Recording and labelling ask
        the same of task and features; reading checks nothing.

        Parameters
        ----------
        fresh
            Whether a new line is asked for: ``headwater train --fresh``.

        Raises
        ------
        ChangedError
            If records or versions are held by what differs; the error names it. Nothing is changed then.
        ConflictError
            If another process declares anew at the same time.
        """
        self.declared.agree(fresh=fresh)

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
            If the pipeline has no label queue.
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
        return self.archive_writer.write()

    def unsequenced(self) -> int:
        """Count the records that wait in the inbox for the sequencer."""
        return self.inbox.count_after(self.repository.inbox_position(self.inbox.identity.inbox))

    def counts(self) -> LogCounts:
        """Count what the log holds."""
        return self.repository.counts(
            unsequenced=self.unsequenced(),
            archived=self.archive["examples"].stop(),
            since_us=to_us(self.clock.now() - duration(self.pipeline.label.wait)),
        )

    def close(self) -> None:
        """Close the inbox; the database is closed by whoever opened it."""
        self.inbox.close()


def _registered(database: Database, pipeline: Pipeline, inbox: Inbox) -> int:
    try:
        return register(database, pipeline, inbox)
    except BaseException:
        inbox.close()
        raise
