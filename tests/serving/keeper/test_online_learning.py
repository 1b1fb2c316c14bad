import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import accumulate

import httpx
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from msgspec.structs import replace
from tests.loop import models
from tests.loop.conftest import PIPELINE
from tests.serving.conftest import NOW, Opener

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.rebuild import rebuild
from headwater.loop.training.fold import fold
from headwater.loop.training.incremental_fold import IncrementalFold
from headwater.loop.training.plan import UpdatePlan, recipe_of
from headwater.registry.restore import fresh, restore
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.keeper.trials import Trial
from headwater.serving.published.alarms import KeeperStatusFile
from headwater.serving.published.published_models import PublishedModels
from headwater.spec.errors import DeclarationError, ModelError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import OffsetRange, Recipe
from headwater.spec.serving.serving import Serving

EACH = replace(PIPELINE, learn="each label", batch_rows=10)


@pytest.fixture
def each(home: Settings, clock: SimulatedClock) -> Iterator[Bound]:
    with Bound(EACH, home, clock) as bound:
        yield bound


def send(client: httpx.Client, first: int, last: int, seed: int = 0) -> None:
    """Predict, and label in another order."""
    rng = random.Random(seed)
    items = [
        {"id": f"p{n}", "features": {"a": rng.gauss(0, 1), "b": rng.gauss(0, 1)}}
        for n in range(first, last)
    ]
    assert client.post("/predict", json={"predictions": items}).status_code == 200
    labels = [{"prediction_id": i["id"], "value": i["features"]["a"] > 0} for i in items]  # type: ignore[index] # a dict
    rng.shuffle(labels)
    answer = client.post("/labels", json={"labels": labels})
    assert {one["status"] for one in answer.json()["labels"]} == {"recorded"}


def live_digest(bound: Bound) -> tuple[int, str, Recipe]:
    """Return the offset to which the served state has learned, its digest, and its recipe."""
    live = PublishedModels(bound.pipeline, bound.settings)
    serving = live.read()
    assert serving is not None
    (state,) = serving.states
    artifacts = [
        (live.folder / f"{state.name}.{kind}").read_bytes() for kind in ("state", "recipe", "proof")
    ]
    learner = restore(*artifacts, bound.settings.key())
    return state.learned_to, learner.digest(), Recipe.from_json(artifacts[1])


def folded(bound: Bound, recipe: Recipe) -> str:
    """Return the digest of one fold of a recipe, from its parent if it has one."""
    store = bound.registry.store
    base = None if recipe.parent is None else store.learner(store.get(recipe.parent))
    return fold(recipe, bound.log, base)[0].digest()


@pytest.mark.parametrize("isolated", [False, True])
def test_labels_are_learned_and_the_learned_state_serves(
    isolated: bool, each: Bound, open_service: Opener, eventually: Callable[..., None]
) -> None:
    with Keeper(each) as keeper:
        keeper.step()
        client = open_service(replace(EACH, serving=Serving(isolated=isolated)))
        before = client.post("/predict", json={"features": {"a": 1, "b": 0}}).json()["output"]
        send(client, 0, 45)
        assert keeper.step()
        learned_to, digest, recipe = live_digest(each)
        assert learned_to == 240  # whole batches of 10
        assert digest == folded(each, recipe)
        eventually(lambda: client.get("/pipelines").json()[0]["learned_to"] == 240)
        assert client.post("/predict", json={"features": {"a": 1, "b": 0}}).json()["output"] != before


def test_a_checkpoint_is_a_version_that_rebuilds(each: Bound, open_service: Opener) -> None:
    with Keeper(each) as keeper:
        keeper.step()
        send(open_service(EACH), 0, 40)
        keeper.step()
    champion = each.registry.champion()
    assert champion is not None
    assert (champion.number, champion.parent, champion.learned) == ("2", "1", 40)
    assert (champion.examples.start, champion.examples.stop) == (200, 240)
    (rebuilt,) = rebuild(EACH.name, champion.number, each.settings).versions
    assert rebuilt.rebuilt_digest == champion.digest


def test_after_a_crash_it_folds_on_from_the_last_version(
    each: Bound, home: Settings, clock: SimulatedClock, open_service: Opener
) -> None:
    keeper = Keeper(each)
    keeper.__enter__()
    keeper.step()
    client = open_service(EACH)
    send(client, 0, 40)
    keeper.step()
    crashed = live_digest(each)
    # Nobody leaves the block: the lease is still this living process's, so time must pass.
    clock.advance_to(NOW + timedelta(days=1))
    with Bound(EACH, home, clock) as bound, Keeper(bound) as other:
        other.step()
        assert live_digest(bound)[:2] == crashed[:2]


def test_a_champion_of_a_rollback_is_caught_up_before_it_serves(
    each: Bound, clock: SimulatedClock, open_service: Opener
) -> None:
    with Keeper(each) as keeper:
        keeper.step()
        client = open_service(EACH)
        send(client, 0, 40)
        keeper.step()
        clock.advance_to(NOW + timedelta(hours=1))  # a checkpoint is due
        keeper.step()
        keeper.step()
        send(client, 40, 60)
        keeper.step()
        each.registry.rollback(by="test", reason="to the first")
        keeper.step()
        keeper.step()
        champion = each.registry.champion()
        assert champion is not None
        assert (champion.parent, champion.examples.start, champion.examples.stop) == ("1", 200, 260)
        learned_to, digest, _ = live_digest(each)
        assert (learned_to, digest) == (260, champion.digest)


def test_collect_leaves_the_sequencing_to_the_service(each: Bound, home: Settings) -> None:
    with Keeper(each) as keeper:
        keeper.step()
        with Bound(EACH, home, SimulatedClock(NOW)) as other:
            assert collect(other.log).emitted == 0


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=strategies.lists(strategies.integers(1, 30), min_size=1, max_size=6))
def test_steps_of_any_length_give_one_state(bound: Bound, steps: list[int]) -> None:
    plan = UpdatePlan(parent=None, reason="test")
    recipe = replace(recipe_of(bound, plan, sum(steps) // 7 * 7, NOW), batch_rows=7)
    whole, learned = fold(recipe, bound.log, None, PIPELINE.model)
    folding = IncrementalFold(replace(recipe, examples=OffsetRange(0, 0)), bound.log, fresh(recipe))
    for place in accumulate(steps):
        folding.advance(place)
    assert folding.learned == learned
    assert folding.recipe == recipe
    if learned:
        assert folding.learner.digest() == whole.digest()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"model": models.trees, "batch_rows": None}, "batch_rows"), ({"passes": 2}, "passes=1")],
)
def test_a_pipeline_that_cannot_learn_each_label_is_refused(
    changes: dict[str, object], words: str, home: Settings
) -> None:
    pipeline: Pipeline = replace(EACH, **changes)
    with pytest.raises(DeclarationError, match=words):
        Bound(pipeline, home)


def test_learning_that_is_behind_for_a_minute_is_an_alarm_until_it_has_caught_up(
    each: Bound, clock: SimulatedClock, open_service: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Keeper(each) as keeper:
        keeper.step()
        send(open_service(EACH), 0, 40)
        with monkeypatch.context() as slow:
            slow.setattr(IncrementalFold, "advance", lambda _self, _stop: 0)
            keeper.step()
            assert alarms(each) == []
            clock.advance_to(NOW + timedelta(minutes=1))
            keeper.step()
            keeper.step()
            (alarm,) = alarms(each)
            assert alarm.startswith("lag: learning has been behind since")
        keeper.step()
        keeper.step()
        assert alarms(each) == []


def test_a_learned_state_that_fails_its_trial_leaves_the_one_before(
    each: Bound, open_service: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Trial:
        raise ModelError("version 1 did not answer within 10 s")

    with Keeper(each) as keeper:
        keeper.step()
        before = live_digest(each)
        client = open_service(EACH)
        with monkeypatch.context() as failing:
            failing.setattr("headwater.serving.keeper.served_champion.try_state", fail)
            send(client, 0, 40)
            keeper.step()
            assert live_digest(each) == before
            assert alarms(each) == ["model: version 1 did not answer within 10 s"]
        send(client, 40, 60)
        keeper.step()
        assert live_digest(each)[0] == 260
        assert alarms(each) == []


def alarms(bound: Bound) -> list[str]:
    status = KeeperStatusFile(bound.pipeline.name, bound.settings).read()
    return [f"{alarm.kind}: {alarm.what}" for alarm in status.alarms]
