"""The flights at the pace of a replay: ``headwater up examples/hurried/live.py:pipeline``.

Windows, waits and pace go by the clock on the wall, and a replay at ``--speed 3000`` lets a day pass in
half a minute: so two days of flights are a window, a label is waited for two days, and decisions are a
window apart. On the seventh day something breaks that nobody announced.
"""

from datetime import timedelta

import polars as pl
from msgspec.structs import replace

from examples.flights import live
from examples.flights.live import START
from examples.flights.pipeline import stage4
from headwater import Drift, LabelRule, Monitoring, Pace, Performance

__all__ = ["BROKEN_AT", "START", "events", "pipeline"]

BROKEN_AT = START + timedelta(days=6)
"""From here on a new feed tells it the other way round: free slots for who waits, early for late."""

_SLOTS = 30

pipeline = replace(
    stage4,
    name="flights-hurried",
    label=LabelRule(wait="1m"),
    triggers=(Drift(update="stateful"), Performance(gain=0.01, sure=2.5, update="stateless")),
    pace=Pace(cool_down="1m"),
    monitoring=Monitoring(rows=2_000, label_windows=4),
)


def events() -> pl.DataFrame:
    """Give every flight of the year, as a replay takes them, with what breaks."""
    new = pl.col("served_at") >= BROKEN_AT
    told = {name: -pl.col(name) for name in ("origin_delay", "carrier_delay")}
    told["waiting"] = _SLOTS - pl.col("waiting")
    return live.events().with_columns(
        pl.when(new).then(value).otherwise(pl.col(name)).alias(name) for name, value in told.items()
    )
