"""An alarm holds while there are labels that the rule of a bandit makes no reward of."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.conftest import START
from tests.loop.conftest import PIPELINE, mlflow_template
from tests.loop.other_models import line

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.serving.keeper.routing_follower import RoutingFollower
from headwater.serving.published.alarms import Alarms, KeeperStatus
from headwater.serving.published.published_models import PublishedModels
from headwater.spec.data.records import Label, Prediction
from headwater.spec.serving.routing import Bandit

__all__ = ["mlflow_template"]

NUMBERS = replace(PIPELINE, task="regression", model=line, metrics=())


@pytest.fixture
def regression(tmp_path: Path, mlflow_template: Path) -> Iterator[Bound]:
    settings = Settings(home=tmp_path / "home")
    shutil.copy(mlflow_template, settings.root / "mlflow.sqlite")
    with Bound(NUMBERS, settings, SimulatedClock(START)) as bound:
        yield bound


def test_the_keeper_raises_an_alarm_for_labels_without_a_reward(regression: Bound) -> None:
    alarms = Alarms(regression.pipeline.name, regression.clock, KeeperStatus())
    live = PublishedModels(regression.pipeline, regression.settings)
    follower = RoutingFollower(regression, live, alarms)

    def alarm() -> list[str]:
        follower.step("1", [])
        return [one.what for one in alarms.held if one.kind == "reward"]

    def route(bandit: Bandit) -> None:
        regression.registry.routings.put(bandit, by="test", reason="")

    route(Bandit(versions=("champion", "challenger"), reward="label"))
    assert alarm() == []
    features = {"a": 1.0, "b": 1.0}
    served = Prediction(id="p", features={**features}, output=0.5, served_at=START, version="1")
    regression.log.record([served])
    regression.log.label([Label(prediction_id="p", value=7.0, known_at=START)])
    with regression.log.sequencer() as sequencer:
        sequencer.drain()
    assert [what.partition(":")[0] for what in alarm()] == [
        "labels from offset 0 on make no reward for the bandit"
    ]
    assert alarms.raised["reward"] == 1
    assert len(alarm()) == alarms.raised["reward"] == 1
    route(Bandit(versions=("champion", "challenger"), reward="error", scale=10.0))
    assert alarm() == []
    follower.close()
