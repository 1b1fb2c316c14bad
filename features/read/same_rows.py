"""Checks that the archive was written from this database, not from a copy that went on by itself.

A copy of a home is of the same log. Logs that were one share their beginning, so the newest row that
both have tells: it is the same, or one of them has gone on by itself.
"""

from collections.abc import Collection

import polars as pl

from headwater.features.read.archive import Archive, Archived
from headwater.features.read.frames import EXAMPLE, Frames
from headwater.features.read.repository import LogRepository
from headwater.spec.errors import DamagedError, IdentityError, TableError
from headwater.spec.recipe import OffsetRange

__all__ = ["SameRows", "frame_of"]

_HINT = (
    "go on with the home that wrote the table (HEADWATER_HOME, HEADWATER_DATABASE_URL), or point "
    "HEADWATER_STORAGE and HEADWATER_MLFLOW_URI at new places for this one"
)
_COLUMNS: dict[Archived, tuple[str, ...]] = {
    "predictions": ("prediction_id", "features", "output", "served_at"),
    "labels": ("prediction_id", "label", "known_at"),
    "examples": ("prediction_id", "label", "features", "known_at"),
}


class SameRows:
    """The comparison of the archive's newest rows with the database, but for rows of this process.

    Parameters
    ----------
    archive, stored
        The tables, and what the database has.
    """

    def __init__(self, archive: Archive, stored: LogRepository) -> None:
        self._archive = archive
        self._stored = stored
        self._known: dict[Archived, int] = {}

    def written(self, name: Archived, stop: int) -> None:
        """Note that this process has written a table up to `stop`."""
        self._known[name] = stop

    def check(self, name: Archived, frames: Frames) -> int:
        """Check a table's newest row, if another process wrote it; return where the table stops.

        Raises
        ------
        IdentityError
            If the database has another one in its place, or belongs to another log.
        TableError, StorageError
            If the table cannot be read.
        """
        stop = self._archive[name].stop()
        if stop == self._known.get(name, 0):
            return stop
        position, offset = self._stored.ends()  # read after the table's: it is never behind
        end = offset if name == "examples" else position
        newest = self._archive[name].newest(min(stop, end))
        if newest is not None and not self._is_same(name, newest, frames):
            raise self._gone_on(name, newest)
        self._known[name] = stop
        return stop

    def check_all(self, frames: Frames) -> None:
        """Check each table that this process has not looked at yet.

        Raises
        ------
        IdentityError, TableError, StorageError
            As for :meth:`check` and :meth:`check_behind`.
        """
        for name in _COLUMNS:
            if name not in self._known:
                self.check_behind(name, self.check(name, frames))

    def check_behind(self, name: Archived, stop: int) -> None:
        """Check that a table that stops at `stop` is not ahead of the database.

        Raises
        ------
        IdentityError
            If it is.
        """
        position, offset = self._stored.ends()
        end = offset if name == "examples" else position
        if stop > end:
            raise IdentityError(
                f"table {name!r} at {self._archive[name].address} stops at {stop}, the database at {end}"
                ": they are not of one log, or a copy of this home went on by itself",
                hint=_HINT,
                thing=f"table {name!r}",
                where=self._archive[name].address,
            )

    def _is_same(self, name: Archived, place: int, frames: Frames) -> bool:
        columns = _COLUMNS[name]
        try:
            stored = frame_of(name, self._stored, frames, place, place + 1)
        except DamagedError:
            return True  # a damaged row tells nothing, in either; whoever reads it is told
        if stored.is_empty():
            return True
        try:
            archived = self._archive[name].read(OffsetRange(place, place + 1), frames.schema(columns))
        except TableError:
            return True
        return _rows(archived, columns) == _rows(stored, columns)

    def _gone_on(self, name: Archived, place: int) -> IdentityError:
        where = self._archive[name].address
        return IdentityError(
            f"row {place} of table {name!r} at {where} is not the one that the database has: a copy of "
            "this home, or of its database, went on by itself and wrote there",
            hint=_HINT,
            thing=f"table {name!r}",
            where=where,
        )


def frame_of(
    name: Archived,
    stored: LogRepository,
    frames: Frames,
    start: int,
    stop: int,
    without: Collection[int] = (),
) -> pl.DataFrame:
    """Return the rows of a range as the database has them, and as an archive's table is to have them.

    Raises
    ------
    DamagedError
        If examples are damaged that are not among `without`.
    """
    if name == "predictions":
        return frames.predictions(stored.predictions(start, stop))
    if name == "labels":
        return frames.labels(stored.labels(start, stop))
    return frames.examples(stored.examples(start, stop, without), EXAMPLE)


def _rows(frame: pl.DataFrame, columns: tuple[str, ...]) -> list[tuple[object, ...]]:
    return frame.select(list(columns)).rows()
