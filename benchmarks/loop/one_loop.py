"""A week of flights replayed in process, and the same week over HTTP: equal offsets, equal digests."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import polars as pl
from examples.flights.data import load
from examples.flights.pipeline import stage3

from benchmarks.claim import Outcome, at_least, fresh_home, mlflow_database, say
from benchmarks.service.load import served_app, server
from headwater.infra.clock import SimulatedClock
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.replay.replay import Replay
from headwater.loop.training.update import train
from headwater.serving.client.client import Client
from headwater.serving.client.replay_client import replay
from headwater.serving.keeper.keeper import Keeper

__all__ = ["measure"]

_START = datetime(2013, 3, 1, 8, tzinfo=UTC)
_DAY = timedelta(days=1)
_DAYS, _SHORT_DAYS = 7, 1
_HISTORY, _SHORT_HISTORY = 59, 3
_COLUMNS = (
    "offset",
    "prediction_id",
    "label",
    "features",
    "revision",
    "supersedes",
    "output",
    "version",
)


def measure(*, short: bool) -> Outcome:
    """Compare what both logs hold, example by example, and the digests of what is learned of it.

    Labels that come after the week, of flights within it, are sent too. Outputs and versions are
    compared as well: the same version answers the same.
    """
    stop = _START + (_SHORT_DAYS if short else _DAYS) * _DAY
    events = load().rename({"late": "label"}).drop_nulls("label")
    first = _START - (_SHORT_HISTORY if short else _HISTORY) * _DAY
    events = events.filter(pl.col("served_at").is_between(first, stop, closed="left"))
    with _begun(events) as (bound, played):
        begun = bound.log.stop()
        list(played.run(_START, stop + 10 * _DAY, _DAY, update=False))
        here = bound.log.examples(begun, None, _COLUMNS)
        digests = {train(bound).version.digest}  # type: ignore[union-attr] # there are examples
    say(f"  in process: {here.height:,} examples")
    with _begun(events) as (bound, _):
        with Keeper(bound) as keeper:
            keeper.step()
        week = events.filter(pl.col("served_at") >= _START)
        early = events.filter(pl.col("served_at") < _START, pl.col("known_at") > _START)
        with (
            server(served_app(stage3), bound.settings) as to,
            Client(f"http://127.0.0.1:{to.port}") as client,
        ):
            *_, sent = replay(client, stage3, week, float("inf"), known_later=early)
        collect(bound.log)
        there = bound.log.examples(begun, None, _COLUMNS)
        digests.add(train(bound).version.digest)  # type: ignore[union-attr] # there are examples
    same = sum(a == b for a, b in zip(here.iter_rows(), there.iter_rows(), strict=False))
    return at_least(
        same / max(here.height, there.height),
        1.0,
        also=len(digests) == 1,
        examples=here.height,
        over_http=there.height,
        digests=len(digests),
        predictions=sent.predictions,
    )


@contextmanager
def _begun(events: pl.DataFrame) -> Iterator[tuple[Bound, Replay]]:
    """Give a home with the history imported and a first version."""
    clock = SimulatedClock(events["served_at"][0] - _DAY)
    with fresh_home(mlflow_database()) as settings, Bound(stage3, settings, clock) as bound:
        played = Replay(bound, clock, events)
        played.begin(_START)
        yield bound, played
