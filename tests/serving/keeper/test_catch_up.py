"""A new champion is caught up before it serves, and one that fails leaves the old one serving."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.loop.conftest import PIPELINE
from tests.patience import PATIENCE_S
from tests.serving.conftest import NOW
from tests.serving.examples import fill
from tests.serving.keeper.test_online_learning import EACH, folded, live_digest

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.audit import audited
from headwater.loop.binding import Bound
from headwater.loop.training.update import train
from headwater.registry.version import Version
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.published.alarms import KeeperStatusFile
from headwater.serving.published.published_models import PublishedModels

KEEPS = "tests/serving/keeper/test_catch_up.py:EACH"


@pytest.fixture
def each(home: Settings, clock: SimulatedClock) -> Iterator[Bound]:
    with Bound(EACH, home, clock) as bound:
        yield bound


@pytest.fixture
def keeper(each: Bound) -> Iterator[Keeper]:
    with Keeper(each) as keeper:
        settle(keeper)
        yield keeper


def settle(keeper: Keeper) -> None:
    while keeper.step():
        pass


def served(bound: Bound) -> str:
    found = PublishedModels(bound.pipeline, bound.settings).read()
    assert found is not None
    return found.states[0].version


def champion(bound: Bound) -> Version:
    found = bound.registry.champion()
    assert found is not None
    return found


def retrain(bound: Bound, *, fresh: bool = True) -> Version:
    """Train on all examples and promote, as a flow does beside the service."""
    version = train(bound, from_scratch=fresh).version
    assert version is not None
    return version


def alarms(bound: Bound) -> list[tuple[str, str, str]]:
    status = KeeperStatusFile(bound.pipeline.name, bound.settings).read()
    return [(alarm.kind, alarm.what, alarm.hint) for alarm in status.alarms]


def test_a_retrained_version_serves_caught_up_and_gated(each: Bound, keeper: Keeper) -> None:
    fill(each, 0, 100)
    settle(keeper)
    made = retrain(each)
    fill(each, 100, 250)  # what comes between its last example and its promotion's being seen
    settle(keeper)
    child = champion(each)
    assert (child.parent, child.examples.start, child.examples.stop) == (made.number, 300, 450)
    assert child.refused is None
    run = each.registry.mlflow.client.get_run(child.run_id)
    assert {"gate_worse", "gate_error"} <= run.data.metrics.keys()
    learned_to, digest, _ = live_digest(each)
    assert (served(each), learned_to, digest) == (child.number, 450, child.digest)
    assert alarms(each) == []


def test_a_champion_that_missed_no_example_gets_no_child(each: Bound, keeper: Keeper) -> None:
    fill(each, 0, 100)
    settle(keeper)
    made = retrain(each)
    settle(keeper)
    assert served(each) == champion(each).number == made.number


def test_a_gated_version_leaves_the_old_champion_serving_and_learning(
    each: Bound, keeper: Keeper
) -> None:
    fill(each, 0, 40)
    settle(keeper)
    fill(each, 40, 1_040, flipped=True)
    with Bound(PIPELINE, each.settings, SimulatedClock(NOW)) as flow:
        keeper.step()
        bad = train(flow, from_scratch=True).version
        assert bad is not None
    fill(each, 1_040, 1_140)
    settle(keeper)
    assert champion(each).number == served(each) == "1"
    (refused,) = [v for v in each.registry.store.versions() if v.refused]
    assert (refused.parent, refused.examples.stop) == (bad.number, 1_340)
    ((kind, what, hint),) = alarms(each)
    assert (kind, refused.number in what, "headwater pause line" in hint) == ("swap", True, True)
    assert [row.action for row in audited(each.database, 2)] == ["promote", "put back"]
    fill(each, 1_140, 1_200)
    settle(keeper)
    learned_to, digest, recipe = live_digest(each)
    assert (learned_to, recipe.parent) == (1_400, "1")
    assert digest == folded(each, recipe)


def test_the_old_champion_learns_during_a_long_catch_up(each: Bound, keeper: Keeper) -> None:
    fill(each, 0, 100)
    settle(keeper)
    made = retrain(each)
    fill(each, 100, 500)  # more than one step of the catch-up judges
    assert keeper.step()
    assert (served(each), live_digest(each)[0]) == ("1", 700)
    fill(each, 500, 550)
    assert keeper.step()
    assert (served(each), live_digest(each)[0]) == ("1", 750)
    settle(keeper)
    assert (champion(each).parent, live_digest(each)[0]) == (made.number, 750)


@pytest.fixture
def damage(each: Bound) -> Iterator[Callable[[str], None]]:
    """Yield a function that damages a version's state; repaired afterwards, since homes share it."""
    mended: list[tuple[Path, bytes]] = []

    def spoil(number: str) -> None:
        version = each.registry.store.get(number)
        where = each.registry.mlflow.client.get_logged_model(version.model_id).artifact_location
        state = Path(where.removeprefix("file://")) / "artifacts" / "state.bin"
        mended.append((state, state.read_bytes()))
        state.write_bytes(mended[-1][1][:-1])

    yield spoil
    for state, good in mended:
        state.write_bytes(good)


def test_a_damaged_version_leaves_the_old_champion_serving_and_learning(
    each: Bound, keeper: Keeper, damage: Callable[[str], None]
) -> None:
    fill(each, 0, 40)
    settle(keeper)
    made = retrain(each)
    damage(made.number)
    settle(keeper)
    assert champion(each).number == served(each) == "1"
    assert [kind for kind, _, _ in alarms(each)] == ["swap"]
    fill(each, 40, 80)
    settle(keeper)
    assert live_digest(each)[0] == 280
    good = retrain(each)
    settle(keeper)
    assert served(each) == good.number
    assert alarms(each) == []  # the next that takes over ends the alarm


def test_a_former_champion_is_caught_up_and_not_gated_again(each: Bound, keeper: Keeper) -> None:
    fill(each, 0, 40)
    settle(keeper)
    retrain(each)
    settle(keeper)
    fill(each, 40, 140, flipped=True)
    each.registry.rollback(by="test", reason="flipped", to="1")
    settle(keeper)
    assert (champion(each).parent, champion(each).refused) == ("1", None)
    assert live_digest(each)[:2] == (340, champion(each).digest)


@pytest.mark.parametrize("point", ["register.after_version", "promote.after_swap"])
def test_the_next_keeper_ends_the_catch_up_of_a_killed_one(
    each: Bound, home: Settings, point: str
) -> None:
    with Keeper(each) as keeper:
        settle(keeper)
        fill(each, 0, 40)
        settle(keeper)
        made = retrain(each)
        fill(each, 40, 140)
    variables = {**os.environ, "HEADWATER_HOME": str(home.root), "HEADWATER_KILL_AT": point}
    variables["HEADWATER_NOW"] = NOW.isoformat()
    command = [sys.executable, "-m", "headwater.serving.keeper", KEEPS]
    killed = subprocess.run(command, env=variables, check=False, capture_output=True, timeout=PATIENCE_S)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2_000:]
    assert served(each) == "1"
    with Keeper(each) as keeper:
        settle(keeper)
    child = champion(each)
    assert (child.parent, child.examples.stop) == (made.number, 340)
    assert live_digest(each)[:2] == (340, child.digest)
    children = [v for v in each.registry.store.versions() if v.parent == made.number]
    assert len(children) == 1


def test_in_a_pause_a_new_champion_serves_as_it_is(each: Bound, keeper: Keeper) -> None:
    fill(each, 0, 100)
    settle(keeper)
    each.registry.pauses.pause(by="test", reason="a look")
    made = retrain(each)
    fill(each, 100, 200)
    settle(keeper)
    assert (served(each), live_digest(each)[0]) == (made.number, 300)
    each.registry.pauses.resume(by="test", reason="on")
    settle(keeper)
    learned_to, digest, recipe = live_digest(each)
    assert (learned_to, recipe.parent, digest) == (400, made.number, folded(each, recipe))


def test_without_a_gate_every_version_passes(home: Settings, clock: SimulatedClock) -> None:
    with Bound(replace(EACH, gate=None), home, clock) as bound, Keeper(bound) as keeper:
        settle(keeper)
        fill(bound, 0, 600, flipped=True)
        settle(keeper)
        made = retrain(bound)
        fill(bound, 600, 700)
        settle(keeper)
        assert champion(bound).parent == made.number
