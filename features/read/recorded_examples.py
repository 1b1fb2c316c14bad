"""Examples as they were recorded, from archive and database, and their projection."""

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial

import polars as pl

from headwater.features.read.archive import Archive
from headwater.features.read.frames import Frames
from headwater.features.read.repository import LogRepository
from headwater.features.read.same_rows import SameRows
from headwater.features.record.declared import Declared, recorded_declarations
from headwater.features.values.projection import Projection, function_beside
from headwater.infra.store.database import Database
from headwater.spec.data.feature import FeatureKind
from headwater.spec.declaration import Declaration
from headwater.spec.errors import DamagedError, NotFoundError, TableError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import OffsetRange

__all__ = ["RecordedExamples"]

_logger = logging.getLogger("headwater.log")


class RecordedExamples:
    """The examples of one log.

    Parameters
    ----------
    pipeline, pipeline_id, declared
        Whose, its number in the database, and the declaration in force.
    archive, database, repository, same_rows
        Where they are, and the check that archive and database are of one log.
    quarantined
        Returns the quarantined offsets of a range.

    Attributes
    ----------
    frames
        Makes frames of stored records.
    """

    def __init__(  # noqa: PLR0913 - the stores
        self,
        pipeline: Pipeline,
        pipeline_id: int,
        declared: Declared,
        *,
        archive: Archive,
        database: Database,
        repository: LogRepository,
        same_rows: SameRows,
        quarantined: Callable[[int, int], Sequence[int]],
    ) -> None:
        self._pipeline = pipeline
        self._pipeline_id = pipeline_id
        self._declared = declared
        self._archive = archive
        self._database = database
        self._repository = repository
        self._same_rows = same_rows
        self._quarantined = quarantined
        self.frames = Frames(declared.stored.task, self._recorded_under)

    def _recorded_under(self) -> dict[int, Declaration]:
        """Return what records were recorded under, by number; the declaration, if there are none yet."""
        with self._database.reading() as connection:
            found = recorded_declarations(connection, self._pipeline_id)
        return found or {0: self._declared.stored.as_recorded}

    def read(self, start: int, stop: int | None, columns: Collection[str]) -> pl.DataFrame:
        """Return examples with the features of all declarations, and the number of each one's.

        Parameters
        ----------
        start, stop, columns
            Which offsets, up to the newest if `stop` is None, and which columns; ``recorded_by`` comes
            with them.

        Raises
        ------
        NotFoundError, DamagedError, IdentityError, StorageError
            As for :meth:`headwater.features.read.log_reader.LogReader.examples`.
        """
        _, end = self._repository.ends()
        stop = end if stop is None else stop
        if not 0 <= start <= stop <= end:
            raise NotFoundError(
                f"pipeline {self._pipeline.name!r} has no examples [{start}, {stop}); it has [0, {end})",
                hint="ask for a range within, or run headwater collect first",
            )
        wanted = list(dict.fromkeys((*columns, "recorded_by")))
        archived = self._archived(start, stop, wanted) if start < stop else None
        if archived is None:
            return self._stored(start, stop, wanted)
        (old, old_stop), known = archived, self.frames.features.declarations
        if old_stop == stop:
            return old
        new = self._stored(old_stop, stop, wanted)
        if self.frames.features.declarations is not known:  # one of another declaration came
            return self.read(start, stop, columns)
        return pl.concat([old, new], how="vertical_relaxed")

    def _archived(
        self, start: int, stop: int, columns: Sequence[str]
    ) -> tuple[pl.DataFrame, int] | None:
        """Return the archived examples of a range and their stop; None if there are none, or damaged."""
        try:
            end = min(stop, self._same_rows.check("examples", self.frames))
            if end <= start:
                return None
            schema, offsets = self.frames.schema(columns), OffsetRange(start, end)
            frame = self._archive["examples"].read(offsets, schema)
            if not self.frames.features.know(frame["recorded_by"].unique().to_list()):
                frame = self._archive["examples"].read(offsets, self.frames.schema(columns))
            first = pl.col("recorded_by").fill_null(min(self.frames.features.declarations))
            return frame.select(list(columns)).with_columns(first), end
        except TableError as error:
            _logger.warning("%s: read from the database: %s", self._pipeline.name, error.what)
            return None

    def _stored(self, start: int, stop: int, columns: Collection[str]) -> pl.DataFrame:
        """Return the examples of a range as the database has them, without quarantined damaged ones."""
        try:
            rows = self._repository.examples(start, stop)
        except DamagedError as error:
            left_out = set(self._quarantined(start, stop))
            if not left_out.issuperset(error.places):
                raise
            rows = self._repository.examples(start, stop, left_out)
        return self.frames.examples(rows, columns)

    def project(
        self,
        frame: pl.DataFrame,
        place: str,
        features: Sequence[FeatureKind] | None = None,
        model: Callable[[], object] | None = None,
    ) -> pl.DataFrame:
        """Replace the recorded features of a frame by those of a declaration.

        Parameters
        ----------
        frame, place
            As :meth:`read` gives it, and the column by which an error names its rows.
        features, model
            Which features, and in whose file their functions are; the pipeline's own if not given.

        Raises
        ------
        ChangedError, SchemaError
            If a record has no value for a feature, and none can be made.
        """
        projection = Projection(
            self._declared.readable().features if features is None else features,
            self.frames.features.declarations,
            partial(function_beside, model or self._pipeline.model),
            "examples" if place == "offset" else "positions",
        )
        recorded = frame["features"].struct.unnest()
        made = projection.apply(recorded, frame["recorded_by"], frame[place])
        return frame.with_columns(made.to_struct("features"))
