"""Replay a week in this process, and the same week over HTTP: offsets and digests are equal."""

import random
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from tests.conftest import START
from tests.loop.conftest import PIPELINE
from tests.serving.conftest import NOW, Opener

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.replay.replay import Replay
from headwater.loop.training.update import train
from headwater.serving.client.client import Client
from headwater.serving.client.replay_client import replay
from headwater.serving.keeper.keeper import Keeper
from headwater.spec.errors import NotEnoughError

WEEK = timedelta(days=7)
COLUMNS = ("offset", "prediction_id", "label", "features", "revision", "supersedes")


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    """Return two hundred events before NOW's week and a thousand in it; labels come in another order."""
    rng, rows = random.Random(3), []
    for n in range(1_500):
        at = NOW - timedelta(days=1) + n * timedelta(days=8) / 1_500
        a, b = rng.gauss(0, 1), rng.gauss(0, 1)
        known_at = at + timedelta(hours=rng.choice((1, 5, 30)))
        labelled = rng.random() < 0.9
        row = {"id": f"e{n}", "served_at": at, "a": a, "b": b, "label": a > b, "known_at": known_at}
        rows.append(row if labelled else {**row, "label": None, "known_at": None})
    return pl.DataFrame(rows, schema_overrides={"label": pl.Boolean})


def test_a_week_in_process_and_over_http_gives_equal_digests(
    events: pl.DataFrame, tmp_path: Path, mlflow_template: Path, open_service: Opener, bound: Bound
) -> None:
    here = Settings(home=tmp_path / "here")
    (here.root / "mlflow.sqlite").write_bytes(mlflow_template.read_bytes())
    clock = SimulatedClock(START)
    with Bound(PIPELINE, here, clock) as replayed:
        in_process = Replay(replayed, clock, events)
        first = in_process.begin(NOW)
        assert first.version is not None
        list(in_process.run(NOW, NOW + WEEK + timedelta(days=2), timedelta(days=1), update=False))
        second = train(replayed)
        assert second.version is not None
        expected = replayed.log.examples(first.version.examples.stop, None, COLUMNS)
        digest = second.version.digest

    there = Settings(home=tmp_path / "there")
    (there.root / "mlflow.sqlite").write_bytes(mlflow_template.read_bytes())
    clock = SimulatedClock(START)
    with Bound(PIPELINE, there, clock) as served:
        Replay(served, clock, events).begin(NOW)
        with Keeper(served) as keeper:
            keeper.step()
        week = events.filter(pl.col("served_at") >= NOW)
        early = events.filter(
            pl.col("served_at") < NOW, pl.col("known_at") > NOW
        )  # predicted before, known within the week
        service = open_service(home=there, clock=clock)
        with Client(str(service.base_url)) as client:
            *_, sent = replay(client, PIPELINE, week, float("inf"), known_later=early)
        assert (sent.predictions, sent.versions) == (week.height, {"1": week.height})
        collect(served.log)
        found = served.log.examples(first.version.examples.stop, None, COLUMNS)
        assert found.equals(expected)
        after = train(served)
        assert after.version is not None
        assert after.version.digest == digest


def test_no_events_is_an_error(open_service: Opener, events: pl.DataFrame) -> None:
    with pytest.raises(NotEnoughError), Client("http://127.0.0.1:9") as client:
        next(replay(client, PIPELINE, events.head(0), 1.0))
