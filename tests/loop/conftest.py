"""Pipelines bound to stores, and days of examples for them; MLflow's database is made once."""

import random
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from tests.conftest import START
from tests.loop import models

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.registry.mlflow_store.connection import check_reachable
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

PIPELINE = Pipeline(
    name="line",
    task="binary",
    features=(Feature("a", float), Feature("b", float)),
    label=LabelRule(wait="1d"),
    model=models.sgd,
    update=Stateful(),
)

Binder = Callable[..., Bound]


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("mlflow")
    check_reachable(Settings(home=home))
    return home / "mlflow.sqlite"


@pytest.fixture
def home(tmp_path: Path, mlflow_template: Path) -> Settings:
    settings = Settings(home=tmp_path / "home")
    shutil.copy(mlflow_template, settings.root / "mlflow.sqlite")
    return settings


@pytest.fixture
def bind(home: Settings) -> Iterator[Binder]:
    """Bind the pipeline, changed as asked, to one home."""
    opened: list[Bound] = []

    def binder(clock: SimulatedClock | None = None, **changes: object) -> Bound:
        pipeline = msgspec.structs.replace(PIPELINE, **changes)
        opened.append(Bound(pipeline, home, clock or SimulatedClock(START)))
        return opened[-1]

    yield binder
    for bound in opened:
        bound.close()


def day(bound: Bound, rows: int = 120, *, seed: int = 0, collected: bool = True) -> None:
    """Let a day pass in which predictions are served and labelled."""
    clock = bound.clock
    assert isinstance(clock, SimulatedClock)
    clock.advance_to(clock.now() + timedelta(days=1))
    rng = random.Random(f"{clock.now()} {seed}")
    names = [f"{clock.now():%d}-{i}" for i in range(rows)]
    points = [(rng.gauss(0, 1), rng.gauss(0, 1)) for _ in names]
    bound.log.record(
        [
            Prediction(id=name, features={"a": a, "b": b}, output=0.5, served_at=clock.now())
            for name, (a, b) in zip(names, points, strict=True)
        ]
    )
    bound.log.label(
        [
            Label(prediction_id=name, value=a + b > 0, known_at=clock.now())
            for name, (a, b) in zip(names, points, strict=True)
        ]
    )
    if collected:
        collect(bound.log)
