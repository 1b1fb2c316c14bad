"""A service in this process, over a home with one trained version."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from tests.conftest import START
from tests.homes import copy_home
from tests.loop.conftest import PIPELINE, mlflow_template
from tests.patience import await_
from tests.serving.flow import history_of
from tests.serving.running import running

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.serving.http.fast_routes import BODY_LIMITS, BodyLimits
from headwater.serving.http.strict_protocol import ConnectionBounds
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.process.app import create_app
from headwater.spec.pipeline import Pipeline

__all__ = ["mlflow_template"]

NOW = START + timedelta(days=2)
Opener = Callable[..., httpx.Client]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Path:
    """Return a home with one version, trained on two hundred examples; tests use copies of it."""
    settings = Settings(home=tmp_path_factory.mktemp("trained") / "home")
    shutil.copy(mlflow_template, settings.root / "mlflow.sqlite")
    with Bound(PIPELINE, settings, SimulatedClock(NOW)) as bound:
        bound.log.import_history(history_of(("a", "b"), 0, 200))
        collect(bound.log)
        train(bound)
    return settings.root


@pytest.fixture
def home(tmp_path: Path, trained: Path) -> Settings:
    copy_home(trained, tmp_path / "home")
    return Settings(home=tmp_path / "home")


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(NOW)


@pytest.fixture
def bound(home: Settings, clock: SimulatedClock) -> Iterator[Bound]:
    with Bound(PIPELINE, home, clock) as bound:
        yield bound


@pytest.fixture
def keeper(bound: Bound) -> Iterator[Keeper]:
    """A keeper that has published the champion."""
    with Keeper(bound) as keeper:
        keeper.step()
        yield keeper


@pytest.fixture
def open_service(home: Settings, clock: SimulatedClock) -> Iterator[Opener]:
    """Return a function that opens a service, by default of the toy pipeline, until the test ends."""
    with ExitStack() as stack:

        def opener(
            *pipelines: Pipeline,
            home: Settings = home,
            clock: SimulatedClock = clock,
            limits: BodyLimits = BODY_LIMITS,
            patience_s: float = 1.0,
            bounds: ConnectionBounds | None = None,
        ) -> httpx.Client:
            served = pipelines or (PIPELINE,)
            app = create_app(served, home, clock, limits=limits, patience_s=patience_s, bounds=bounds)
            return stack.enter_context(running(app))

        yield opener


@pytest.fixture
def client(keeper: Keeper, open_service: Opener) -> httpx.Client:
    return open_service()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Return a function that waits until a condition holds, however long that takes."""

    def wait(holds: Callable[[], bool]) -> None:
        await_(holds)

    return wait
