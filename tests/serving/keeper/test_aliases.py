"""An alias moved in MLflow is heeded by a running service within a minute, or refused with an alarm."""

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from tests.conftest import later
from tests.serving.flow import history_of
from tests.serving.keeper.test_catch_up import alarms, champion, served, settle

from headwater.infra.clock import SimulatedClock
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.serving.keeper.keeper import Keeper


@pytest.fixture
def two(bound: Bound, keeper: Keeper) -> Bound:
    """Two versions, the second of which is champion and serves."""
    bound.log.import_history(history_of(("a", "b"), 200, 300))
    collect(bound.log)
    train(bound)
    settle(keeper)
    assert served(bound) == champion(bound).number == "2"
    return bound


def move(bound: Bound, number: str) -> None:
    bound.registry.mlflow.client.set_registered_model_alias("line", "champion", number)


def test_a_running_service_heeds_a_moved_alias(
    two: Bound, keeper: Keeper, clock: SimulatedClock
) -> None:
    move(two, "1")
    later(clock, minutes=1)
    settle(keeper)
    assert served(two) == champion(two).number == "1"
    reign = two.registry.championship.reign()
    assert reign is not None
    assert (reign.by, alarms(two)) == ("alias", [])
    assert two.registry.store.aliases() == {"champion": "1", "previous": "2"}


def test_an_alias_that_asks_for_a_damaged_version_is_refused_with_an_alarm(
    two: Bound, keeper: Keeper, clock: SimulatedClock
) -> None:
    model = two.registry.store.get("1").model_id
    where = two.registry.mlflow.client.get_logged_model(model).artifact_location
    state = Path(where.removeprefix("file://")) / "artifacts" / "state.bin"
    good = state.read_bytes()
    try:
        state.write_bytes(good[:-1])
        move(two, "1")
        later(clock, minutes=1)
        settle(keeper)
    finally:
        state.write_bytes(good)  # homes share it
    assert served(two) == champion(two).number == "2"
    ((kind, what, _),) = alarms(two)
    assert (kind, "was moved in MLflow is refused" in what) == ("alias", True)
    assert two.registry.store.aliases()["champion"] == "2"
    later(clock, minutes=1)
    settle(keeper)
    assert [kind for kind, _, _ in alarms(two)] == ["alias"]  # until another reign begins
    two.registry.promote("1", by="ada", reason="it is whole again")
    later(clock, minutes=1)
    settle(keeper)
    assert (served(two), alarms(two)) == ("1", [])


def test_mlflow_that_is_away_is_an_alarm_and_moves_nothing(
    two: Bound, keeper: Keeper, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(two, "1")

    def away(_name: str) -> None:
        raise MlflowException("the server does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(two.registry.mlflow.client, "get_registered_model", away)
        later(clock, minutes=1)
        keeper.step()
        ((kind, what, _),) = alarms(two)
        assert (kind, "does not answer" in what) == ("stores", True)
        assert served(two) == "2"
    later(clock, minutes=1)
    settle(keeper)
    assert (alarms(two), served(two)) == ([], "1")
