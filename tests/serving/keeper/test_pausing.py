"""Learning is paused at an offset and goes on from it; quarantined offsets are excluded at once."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies
from msgspec.structs import replace
from tests.homes import copy_home
from tests.loop import models_at_fault
from tests.serving.conftest import NOW, Opener
from tests.serving.examples import fill
from tests.serving.keeper.test_catch_up import alarms, settle
from tests.serving.keeper.test_online_learning import EACH, folded, live_digest
from tests.serving.metrics.test_metrics import totals

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.training.update import train
from headwater.serving.keeper.keeper import Keeper
from headwater.spec.recipe import OffsetRange


@pytest.fixture
def each(home: Settings, clock: SimulatedClock) -> Iterator[Bound]:
    with Bound(EACH, home, clock) as bound:
        yield bound


def pause(bound: Bound) -> int:
    return bound.registry.pauses.pause(by="test", reason="a look").offset


def resume(bound: Bound) -> None:
    bound.registry.pauses.resume(by="test", reason="seen")


ACTIONS = strategies.one_of(
    strategies.integers(1, 40),
    strategies.sampled_from(["pause", "resume", "restart", "checkpoint"]),
)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(actions=strategies.lists(ACTIONS, min_size=2, max_size=8))
@example(actions=[27, "checkpoint", 3])  # a batch of which the archive has a part
def test_no_order_of_pauses_loses_an_example(trained: Path, actions: list[int | str]) -> None:
    """In any order of actions, the state is the fold of its recipe, up to the last whole batch."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        home = Settings(home=copy_home(trained, Path(folder) / "home"))
        bound = stack.enter_context(Bound(EACH, home, SimulatedClock(NOW)))
        keeper, sent, halted = Keeper(bound), 0, None
        keeper.__enter__()
        settle(keeper)
        for action in actions:
            if isinstance(action, int):
                fill(bound, sent, sent + action)
                sent += action
            elif action == "pause":
                halted = pause(bound)
            elif action == "resume":
                resume(bound)
                halted = None
            elif action == "restart":  # as after a kill: nothing is told to the old one
                keeper = Keeper(bound)
                keeper.__enter__()
            else:
                learning = keeper._learning
                assert learning is not None
                learning.checkpoint()
            settle(keeper)
            stop = bound.log.stop() if halted is None else halted
            assert live_digest(bound)[0] == max(200, stop // 10 * 10)
        resume(bound)
        settle(keeper)
        learned_to, digest, recipe = live_digest(bound)
        assert learned_to == recipe.examples.stop == (200 + sent) // 10 * 10
        # Not the fold from version 1: a version draws anew, and the estimator has no seed of its own.
        assert digest == folded(bound, recipe)
        keeper.__exit__(None, None, None)


def test_a_pause_is_shown_and_records_go_on(each: Bound, open_service: Opener) -> None:
    with Keeper(each) as keeper:
        settle(keeper)
        client = open_service(EACH)
        fill(each, 0, 40)
        settle(keeper)
        pause(each)
        pause(each)  # again changes nothing
        fill(each, 40, 90)
        settle(keeper)
        learning = client.get("/pipelines").json()[0]["learning"]
        assert (learning["learned_to"], learning["sequenced_to"], learning["paused"]) == (240, 290, True)
        assert (learning["pause"]["by"], learning["pause"]["offset"]) == ("test", 240)
        found = totals(client)
        assert found["headwater_learning_paused line"] == 1
        assert found["headwater_examples_unlearned line"] == 50
        assert client.get("/v2/health/ready").status_code == 200
        resume(each)
        settle(keeper)
        found = totals(client)
        assert found["headwater_learning_paused line"] == 0
        assert found["headwater_examples_unlearned line"] == 0


@pytest.mark.parametrize(
    ("model", "rows"), [(models_at_fault.overshooting_batches, 1), (models_at_fault.failing, None)]
)
def test_an_example_that_cannot_be_learned_waits_for_its_quarantine_alone(
    home: Settings,
    clock: SimulatedClock,
    open_service: Opener,
    model: Callable[[], object],
    rows: int | None,
) -> None:
    one_by_one = replace(EACH, model=model, batch_rows=rows)
    with Bound(one_by_one, home, clock) as bound:
        train(bound, from_scratch=True)
        with Keeper(bound) as keeper:
            blocked_until_quarantined(bound, keeper, open_service(one_by_one))


def blocked_until_quarantined(bound: Bound, keeper: Keeper, client: httpx.Client) -> None:
    settle(keeper)
    fill(bound, 0, 30)
    fill(bound, 30, 31, a=1_000.0)
    fill(bound, 31, 60)
    settle(keeper)
    ((kind, what, hint),) = alarms(bound)
    assert (kind, "example 230" in what) == ("learning", True)
    assert "headwater quarantine line 230:231" in hint
    settle(keeper)
    found = totals(client)
    assert found["headwater_alarms learning line"] == 1
    assert found["headwater_alarms_raised_total learning line"] == 1
    assert found["headwater_examples_unlearned line"] == 30
    bound.registry.quarantine.add([OffsetRange(230, 231)], by="test", reason="poison")
    settle(keeper)
    learned_to, digest, recipe = live_digest(bound)
    assert (learned_to, alarms(bound)) == (260, [])
    assert recipe.exclusions == (OffsetRange(230, 231),)
    assert digest == folded(bound, recipe)


@pytest.mark.parametrize(("start", "stop"), [(210, 220), (190, 240)])
def test_quarantined_examples_that_were_learned_are_folded_out(
    each: Bound, start: int, stop: int
) -> None:
    with Keeper(each) as keeper:
        settle(keeper)
        before = live_digest(each)[1]
        fill(each, 0, 40)
        settle(keeper)
        poisoned = live_digest(each)[1]
        each.registry.quarantine.add([OffsetRange(start, stop)], by="test", reason="poison")
        settle(keeper)
        learned_to, digest, recipe = live_digest(each)
        assert (learned_to if start > 200 else 240) == 240
        assert digest != poisoned
        if start > 200:
            assert digest == folded(each, recipe)
        else:
            assert digest == before  # nothing is left of it
