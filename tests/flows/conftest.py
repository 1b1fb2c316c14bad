"""One Prefect server for all tests of this folder, and a toy pipeline in a file of its own."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from tests.patience import PATIENCE_S

from headwater.flows.stack.prefect_environment import environment, within
from headwater.infra.offline import quiet
from headwater.infra.processes import Child, fetch, free_port
from headwater.infra.settings import Settings

TOY = """
import msgspec
import polars as pl
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

from headwater.spec.serving.batch import BatchPrediction
from headwater.spec.data.feature import Feature
from headwater.spec.data.feature_table import FeatureTable
from headwater.spec.data.source import QuerySource
from headwater.spec.data.label import LabelRule
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.pace import Pace
from headwater.spec.updating.triggers.schedule import Cron, Every
from headwater.spec.updating.triggers.volume import Volume
from headwater.spec.updating.update import Stateful, Stateless


def model():
    return SGDClassifier(loss="log_loss", random_state=0)


def people():
    return pl.DataFrame({"person": ["ada", "bob"], "x": [1.0, 2.0]})


def toy(update, *triggers, name="toy", pace=Pace(), every=None):
    return Pipeline(
        name=name,
        task="binary",
        features=(Feature("x", float),),
        label=LabelRule(wait="1d"),
        model=model,
        update=update,
        triggers=triggers,
        pace=pace,
        batch=every and BatchPrediction(
            source=QuerySource(people), key="person", every=None if every == "by hand" else every
        ),
    )


def net():
    return MLPClassifier((2,))


unseeded = msgspec.structs.replace(toy(Stateful(), Volume(10), name="unseeded"), model=net)
by_hand = toy(Stateless())
daily = toy(Stateless(window="90d"), Every("1d"))
stateful = toy(Stateful(), Every("6h"), Cron("30 2 * * *", "Europe/Berlin"))
twin = toy(Stateful())
watched = toy(Stateful(), Volume(10), name="watched", pace=Pace(cool_down="1h"))
watched_by_clock = toy(Stateful(), Every("1d"), name="watched")
shades = msgspec.structs.replace(
    toy(Stateful(), name="shades"),
    task="multiclass",
    label=LabelRule(wait="1d", classes=("red", "blue"), open=True),
)
scored = toy(Stateful(), every="6h")
scored_at_night = toy(Stateful(), every=Cron("30 2 * * *", "Europe/Berlin"))
scored_by_hand = toy(Stateful(), every="by hand")
never = toy(Stateful(), Cron("99 2 * * *"))


def spending():
    return pl.DataFrame({"customer": ["a", "b"], "spent": [1.0, 2.0]})


def faulty():
    return pl.DataFrame({"customer": ["a", "b"], "calls": [1, None]})


tables = (
    FeatureTable(name="calls", entity=("customer",), source=QuerySource(faulty), every="1d"),
    FeatureTable(name="spending", entity=("customer",), source=QuerySource(spending), every="1h"),
)
looking = Pipeline(
    name="toy",
    task="binary",
    features=(tables[0].feature("calls", int), tables[1].feature("spent", float)),
    label=LabelRule(wait="1d"),
    model=model,
    update=Stateful(),
    tables=tables,
)
"""


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a module with pipelines, to be followed by ``:attribute``."""
    path = tmp_path_factory.mktemp("pipelines") / "headwater_toy_of_flows.py"
    path.write_text(TOY)
    return str(path)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Prefect server's API."""
    home = tmp_path_factory.mktemp("prefect")
    port = free_port(0, "")
    quiet()
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-services"]
    child = Child("prefect", command, {**os.environ, "PREFECT_HOME": str(home)}, home / "prefect.log")
    try:
        child.await_answer(lambda: fetch(port, "/api/health") is not None, PATIENCE_S)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        child.end()


@pytest.fixture
def recorded(prefect_api: str, settings: Settings) -> Iterator[str]:
    """Let flows of this process work on `settings`, and be recorded by the server."""
    with within(environment(settings, secrets=True)), temporary_settings({PREFECT_API_URL: prefect_api}):
        yield prefect_api
        EventsWorker.drain_all()  # while the server lives; what is told later may be for another
