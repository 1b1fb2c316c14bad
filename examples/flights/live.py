"""The flights as a live service sees them: ``headwater serve examples/flights/live.py:pipeline``."""

from datetime import UTC, datetime, timedelta

import polars as pl
from msgspec.structs import replace

from examples.flights.data import FEATURES, load
from examples.flights.pipeline import stage4
from headwater import BatchPrediction, QuerySource, settings

__all__ = ["START", "events", "nightly", "pipeline", "timetable"]

_LATER = ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")

START = datetime(2013, 3, 1, 8, tzinfo=UTC)
"""Where a replay starts if nobody says: two months are history then."""

pipeline = replace(stage4, name="flights")


def events() -> pl.DataFrame:
    """Give every flight of the year, as a replay takes them: sorted by ``served_at``."""
    return load().rename({"late": "label"})


def timetable() -> pl.DataFrame:
    """Give the flights of the next 24 hours, with what is known of them ahead: the timetable.

    The present is ``HEADWATER_NOW``, or :data:`START`. Of weather and delays nothing is known yet, and
    nobody waits.
    """
    now = settings().now or START
    day = load().filter(pl.col("served_at").is_between(now, now + timedelta(days=1), closed="left"))
    unknown = [
        pl.lit(None, pl.Float64).alias(name) for name in (*_LATER, "origin_delay", "carrier_delay")
    ]
    nobody = [pl.lit(0.0).alias(name) for name in ("origin_departures", "waiting")]
    return day.with_columns(*unknown, *nobody).select("id", *(feature.name for feature in FEATURES))


nightly = replace(
    pipeline,
    batch=BatchPrediction(source=QuerySource(timetable), key="id", every="1d", fall_through=True),
)
"""The same pipeline; its timetable is scored a day ahead, and the online model answers for the rest."""
