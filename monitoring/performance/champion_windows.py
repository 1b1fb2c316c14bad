"""The windows that the champion served since it became champion, and the rows that it learned last."""

from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl

from headwater.features.read.log_reader import LogReader
from headwater.monitoring.measure.windows import WindowSpan, standing, windows
from headwater.registry.version import Version
from headwater.spec.duration import duration
from headwater.spec.pipeline import Pipeline
from headwater.spec.rulings import Reign
from headwater.spec.updating.evidence import Standing, Window

__all__ = ["ChampionWindow", "ChampionWindows", "learned_rows", "window_of_rows"]

_WINDOWS = 30
_SERVED = ("version", "role", "output", "features")


class ChampionWindow(NamedTuple):
    """A window with the rows that the champion served in it."""

    span: WindowSpan
    frame: pl.DataFrame

    @property
    def labelled(self) -> pl.DataFrame:
        """The rows with label and output."""
        return self.frame.drop_nulls("label").drop_nulls("output")

    @property
    def window(self) -> Window:
        """The record of it that evidence holds."""
        return self.span.window(self.frame.height, self.frame["label"].count())


class ChampionWindows:
    """The newest windows of one reign that are over, oldest first; the first begins with the reign.

    Only the newest window and the newest mature one have features.

    Parameters
    ----------
    pipeline
        Says how long a window is, and how long labels may take.
    log
        The predictions.
    reign, champion
        The reign, and the version that reigns.
    now
        The present, UTC.

    Raises
    ------
    TableError, StorageError
        If the log does not hold what it should, or is away.
    """

    def __init__(
        self, pipeline: Pipeline, log: LogReader, reign: Reign, champion: Version, now: datetime
    ) -> None:
        self._least = pipeline.monitoring.least
        wait = duration(pipeline.label.wait)
        spans = windows(log, pipeline.monitoring, reign.since, now, wait, last=_WINDOWS, aligned=False)
        mine = (pl.col("version") == champion.number) & (pl.col("role") == "champion")
        self.served: list[ChampionWindow] = []
        for place, span in enumerate(spans):
            newest = place == len(spans) - 1 or (span.mature and not spans[place + 1].mature)
            frame = log.served(span.first, span.behind, _SERVED if newest else _SERVED[:3], judged=True)
            self.served.append(ChampionWindow(span, frame.filter(mine)))
        self.mature = [window for window in self.served if window.span.mature]

    @property
    def newest(self) -> ChampionWindow | None:
        """The newest window; None if none is over yet."""
        return self.served[-1] if self.served else None

    @property
    def newest_mature(self) -> ChampionWindow | None:
        """The newest window whose labels are judged; None if there is none yet."""
        return self.mature[-1] if self.mature else None

    def standing(self) -> Standing:
        """Tell whether there is enough to judge."""
        if not self.served:
            return "insufficient_data"
        if self.mature and (of_mature := standing(self.mature[-1].window, self._least)) != "enough":
            return of_mature
        return standing(self.served[-1].window, self._least)


def learned_rows(pipeline: Pipeline, log: LogReader, champion: Version) -> pl.DataFrame:
    """Return the rows that a version learned last, a column a field; `output` is None if imported."""
    stop = champion.examples.stop
    start = max(0, stop - pipeline.monitoring.reference_rows)
    learned = log.judged(start, stop, ("features", "label", "output", "role", "version", "served_at"))
    # Nobody served imported rows: their output is a stand-in.
    return learned.with_columns(pl.when(pl.col("role") != "imported").then("output"))


def window_of_rows(reference: pl.DataFrame) -> Window | None:
    """Return the record of a window that holds these rows; None if there are none."""
    if reference.is_empty():
        return None
    times = reference["served_at"]
    first, last = times.min(), times.max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return None
    return Window(
        start=first,
        stop=last + timedelta(microseconds=1),
        predictions=reference.height,
        labelled=reference.height,
        mature=True,
    )
