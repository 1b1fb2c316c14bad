"""A small pipeline in a home of its own, on a clock that the test moves."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis
import msgspec
import pytest

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

START = datetime(2024, 1, 1, tzinfo=UTC)

hypothesis.settings.register_profile(  # others use the machine too
    "headwater", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("headwater")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what starts the real stack: it waits much, and the rest runs meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("system") is None)


def sgd() -> object:
    """Make a linear classifier that learns on."""
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415

    return SGDClassifier(loss="log_loss", random_state=0)


@pytest.fixture(autouse=True)
def _rights_of_new_files() -> Iterator[None]:
    """Put the umask back, which a command changes for its process: this one, where a test calls it."""
    mask = os.umask(0o022)
    os.umask(mask)
    yield
    os.umask(mask)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(START)


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline(
        name="toy",
        task="binary",
        features=(Feature("x", float), Feature("city", str, nullable=True)),
        label=LabelRule(wait="2h"),
        model=sgd,
        update=Stateful(),
    )


@pytest.fixture
def open_log(
    pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> Iterator[Callable[..., FeatureLog]]:
    """Open the pipeline's log, its label rule changed as asked."""
    opened: list[FeatureLog] = []

    def opener(home: Settings = settings, **rule: object) -> FeatureLog:
        label = msgspec.structs.replace(pipeline.label, **rule)
        log = FeatureLog(msgspec.structs.replace(pipeline, label=label), home, clock)
        opened.append(log)
        return log

    yield opener
    for log in opened:
        log.close()
        log.database.close()


@pytest.fixture
def log(open_log: Callable[..., FeatureLog]) -> FeatureLog:
    return open_log()


def later(clock: SimulatedClock, **by: float) -> datetime:
    """Move the clock, and give its time."""
    clock.advance_to(clock.now() + timedelta(**by))
    return clock.now()
