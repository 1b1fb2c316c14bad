"""The flights as a live service sees them: ``headwater serve examples/flights/live.py:pipeline``."""

from datetime import UTC, datetime

import polars as pl
from msgspec.structs import replace

from examples.flights.data import load
from examples.flights.pipeline import stage4

__all__ = ["START", "events", "pipeline"]

START = datetime(2013, 3, 1, 8, tzinfo=UTC)
"""Where a replay starts if nobody says: two months are history then."""

pipeline = replace(stage4, name="flights")


def events() -> pl.DataFrame:
    """Give every flight of the year, as a replay takes them: sorted by ``served_at``."""
    return load().rename({"late": "label"})
