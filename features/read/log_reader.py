"""Reading the feature log: examples by offset, and predictions by position, labelled or not."""

import logging
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

import polars as pl

from headwater.features.read.archive import Archive
from headwater.features.read.frames import EXAMPLE
from headwater.features.read.quarantined_rows import QuarantinedRows
from headwater.features.read.recorded_examples import RecordedExamples
from headwater.features.read.repository import LogRepository
from headwater.features.read.same_rows import SameRows
from headwater.features.read.shadow_outputs import ShadowOutputs
from headwater.features.record.declared import Declared
from headwater.infra.clock import from_us, to_us
from headwater.infra.store.database import Database
from headwater.spec.data.feature import FeatureKind
from headwater.spec.pipeline import Pipeline

__all__ = ["LogReader"]

_logger = logging.getLogger("headwater.log")


class LogReader:
    """The log of one pipeline as whoever learns, judges or reports sees it.

    Parameters
    ----------
    pipeline, pipeline_id, declared
        Whose log, its number in the database, and the declaration in force, by which records are read.
    database, archive
        Where the sequenced records are.

    Attributes
    ----------
    repository, same_rows
        The records in the database; the check that archive and database are of one log, still.
    shadows, quarantined, project
        The outputs of shadows; what returns the quarantined offsets of a range, rising; and what puts
        the features of a declaration in the place of recorded ones.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        pipeline_id: int,
        declared: Declared,
        database: Database,
        archive: Archive,
    ) -> None:
        self.pipeline = pipeline
        self.pipeline_id = pipeline_id
        self.declared = declared
        self.database = database
        self.archive = archive
        self.repository = LogRepository(database, pipeline_id)
        self.same_rows = SameRows(archive, self.repository)
        self.shadows = ShadowOutputs(database, pipeline_id)
        self._quarantined = QuarantinedRows(database, pipeline_id)
        self.quarantined = self._quarantined.offsets
        self._examples = RecordedExamples(
            pipeline,
            pipeline_id,
            declared,
            archive=archive,
            database=database,
            repository=self.repository,
            same_rows=self.same_rows,
            quarantined=self.quarantined,
        )
        self.frames = self._examples.frames
        self.project = self._examples.project

    def stop(self) -> int:
        """Return the offset that the next example will have."""
        return self.repository.ends()[1]

    def offset_at(self, moment: datetime) -> int:
        """Return the first offset emitted at `moment` or later; :meth:`stop` if there is none."""
        return self.repository.first_emitted(to_us(moment), self.stop())

    def examples(
        self, start: int = 0, stop: int | None = None, columns: Collection[str] = EXAMPLE
    ) -> pl.DataFrame:
        """Return the examples of a range of offsets as they were recorded, which never changes.

        What is damaged in both archive and database is left out once it is quarantined.

        Parameters
        ----------
        start, stop, columns
            From `start` up to, but not including, `stop`; None means up to the newest. All columns if
            none are named.

        Returns
        -------
        polars.DataFrame
            A row an example, by rising offset: ``offset``, ``label``, ``features`` (a struct),
            ``prediction_id``, ``served_at``, ``known_at`` and ``emitted_at`` (UTC), ``version``,
            ``role``, ``propensity``, ``output``, ``source``, ``revision``, ``late``, ``supersedes``,
            ``entity`` and ``ages_s`` (JSON; null if nothing was looked up), and ``recorded_by``, the
            number of what it was recorded under. The features are those of all declarations of the
            range; one that was declared again with another type has a column of its own, ``k@2``.

        Raises
        ------
        NotFoundError, DamagedError
            If the range is not there yet; if an example is damaged of which no whole copy is left.
        IdentityError, StorageError
            If the archive is another log's, or a store is away.
        """
        frame = self._examples.read(start, stop, columns)
        if "features" in columns:
            numbers = frame["recorded_by"].unique().to_list() or [max(self.frames.features.declarations)]
            fields = self.frames.features.columns_of(numbers)
            frame = frame.with_columns(
                pl.struct(pl.col("features").struct.field(name) for name in fields).alias("features")
            )
        return frame.select(list(columns))

    def projected(
        self,
        start: int,
        stop: int,
        columns: Collection[str] = EXAMPLE,
        features: Sequence[FeatureKind] | None = None,
        model: Callable[[], object] | None = None,
        without: Collection[int] = (),
    ) -> pl.DataFrame:
        """Return the examples of a range, with the features of one declaration: what learning reads.

        Parameters
        ----------
        start, stop, columns
            As for :meth:`examples`.
        features, model, without
            The features, in order, and in whose file the functions are that they name; the pipeline's
            own if not given. Offsets to leave out.

        Raises
        ------
        ChangedError, SchemaError
            If a record has no value for a feature, and none can be made; the rest is as above.
        """
        frame = self._examples.read(start, stop, ("offset", *columns))
        frame = frame.filter(~pl.col("offset").is_in(list(without)))  # first: they may be why it fails
        if "features" in columns:
            frame = self.project(frame, "offset", features, model)
        return frame.select(list(columns))

    def judged(
        self,
        start: int,
        stop: int,
        columns: Collection[str] = EXAMPLE,
        features: Sequence[FeatureKind] | None = None,
        model: Callable[[], object] | None = None,
    ) -> pl.DataFrame:
        """Return the examples of a range as :meth:`projected` does, without the quarantined ones."""
        left_out = self._quarantined.offsets(start, stop)
        return self.projected(start, stop, columns, features, model, left_out)

    def position_at(self, moment: datetime) -> int:
        """Return the position from which on predictions were recorded at `moment` or later."""
        return _first_since(self.repository, to_us(moment), self.positions())

    def position_after(self, position: int, predictions: int) -> int | None:
        """Return the position behind the next `predictions` predictions; None if there are fewer."""
        recorded = self.repository.recorded(position, predictions - 1)
        return None if recorded is None else recorded[0] + 1

    def recorded_at(self, position: int) -> datetime | None:
        """Return when the prediction at `position`, or the next, was recorded; None behind the last."""
        recorded = self.repository.recorded(position)
        return None if recorded is None else from_us(recorded[1])

    def positions(self) -> int:
        """Return the position that the next record will have."""
        return self.repository.ends()[0]

    def served(
        self,
        start: int,
        stop: int,
        columns: Collection[str] = ("version", "role", "output", "features"),
        *,
        shadows: bool = False,
        judged: bool = False,
    ) -> pl.DataFrame:
        """Return the predictions of a range of positions, with or without labels.

        A range is found by :meth:`position_at` or :meth:`position_after`; times of receipt never fall
        as positions rise.

        Parameters
        ----------
        start, stop, columns
            From `start` up to, but not including, `stop`; which ones of a prediction to read.
        shadows
            Give a row, too, for each version that predicted beside the one that answered: with that
            version, its output, the role ``"shadow"``, and all else as the prediction has it.
        judged
            Leave out the predictions whose newest example is quarantined.

        Returns
        -------
        polars.DataFrame
            A row a prediction, in the order recorded: ``position``, ``recorded_at`` (UTC),
            ``recorded_by``, the wanted columns, features as the pipeline declares them, and ``label``:
            the newest revision, or null if none came, or the first came after the wait.
        """
        rows = self.repository.predictions(start, stop)
        frame = self.frames.served(rows, self.repository.labels_of(start, stop), list(columns))
        if judged and (left_out := self._quarantined.positions(start, stop)):
            frame = frame.filter(~pl.col("position").is_in(left_out))
        if "features" in columns:
            frame = self.project(frame, "position")
        return self.frames.beside(frame, self.shadows.between(start, stop)) if shadows else frame

    def predictions(self) -> pl.DataFrame:
        """Return every sequenced prediction as it was recorded, for tables and tests of modest size."""
        return self.frames.predictions(self.repository.predictions(0, self.repository.ends()[0]))


def _first_since(repository: LogRepository, moment_us: int, stop: int) -> int:
    """Bisect for the first position below `stop` recorded at a time or later; `stop` if none is."""

    def after(position: int) -> bool:
        recorded = repository.recorded(position)
        return recorded is None or recorded[1] >= moment_us

    return bisect_left(range(stop), True, key=after)
