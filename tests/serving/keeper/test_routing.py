"""Routing over HTTP: the answering version, its log record, and the outputs of shadows."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from tests.homes import copy_home
from tests.loop import models_at_fault
from tests.loop.conftest import PIPELINE
from tests.serving.conftest import NOW, Opener
from tests.serving.flow import history_of

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.monitoring.performance.window_performance import performance_of
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.published.alarms import KeeperStatusFile
from headwater.serving.published.published_models import PublishedModels, ServingFile
from headwater.spec.serving.routing import ABTest, Bandit, Canary, ChampionOnly, Routing, Shadow
from headwater.spec.serving.serve_best import ServeBest

Eventually = Callable[[Callable[[], bool]], None]


@pytest.fixture(scope="session")
def two_versions(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """Return a home with a good version 1, which serves, and a version 2 that learned the opposite."""
    home = tmp_path_factory.mktemp("two") / "home"
    copy_home(trained, home)
    with Bound(PIPELINE, Settings(home=home), SimulatedClock(NOW)) as bound:
        history = [
            (prediction, replace(label, value=not label.value))
            for prediction, label in history_of(("a", "b"), 200, 1_200)
        ]
        bound.log.import_history(history)
        collect(bound.log)
        train(bound)
        bound.registry.promote("1", by="test", reason="the good one")
    return home


@pytest.fixture
def home(tmp_path: Path, two_versions: Path) -> Settings:
    copy_home(two_versions, tmp_path / "home")
    return Settings(home=tmp_path / "home")


@pytest.fixture
def route(bound: Bound, keeper: Keeper) -> Callable[[Routing | None], None]:
    """Set a routing at run time, and let the keeper follow."""

    def set_routing(routing: Routing | None) -> None:
        bound.registry.routings.put(routing, by="test", reason="a test")
        settle(keeper)

    return set_routing


def settle(keeper: Keeper) -> None:
    while keeper.step():
        pass


def published(bound: Bound) -> ServingFile:
    found = PublishedModels(bound.pipeline, bound.settings).read()
    assert found is not None
    return found


def items_of(name: str, count: int) -> list[dict[str, Any]]:
    rng = random.Random(name)
    return [
        {
            "id": f"{name}-{n}",
            "unit": f"unit-{n}",
            "features": {"a": rng.gauss(0, 1), "b": rng.gauss(0, 1)},
        }
        for n in range(count)
    ]


def predict(client: httpx.Client, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answer = client.post("/predict", json={"predictions": items})
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


def label(client: httpx.Client, items: list[dict[str, Any]]) -> None:
    labels = [
        {"prediction_id": item["id"], "value": sum(item["features"].values()) > 0} for item in items
    ]
    assert client.post("/labels", json={"labels": labels}).status_code == 200


def sequence(bound: Bound) -> None:
    with bound.log.sequencer() as sequencer:
        sequencer.drain()


def follows(client: httpx.Client, kind: str) -> Callable[[], bool]:
    """Return whether the worker routes as expected by now."""
    return lambda: client.get("/pipelines").json()[0]["routing"]["type"] == kind


@pytest.mark.parametrize(
    "routing",
    [Canary(share=0.3, version="2"), ABTest(shares={"2": 0.3, "champion": 0.7})],
    ids=["canary", "ab_test"],
)
def test_shares_are_met_stick_and_are_logged(
    routing: Routing, route: Callable[..., None], open_service: Opener, bound: Bound
) -> None:
    route(routing)
    client = open_service()
    first = predict(client, items_of("first", 600))
    roles = Counter((one["version"], one["role"]) for one in first)
    assert roles.keys() == {("1", "champion"), ("2", "challenger")}
    assert 0.25 < roles["2", "challenger"] / 600 < 0.35
    again = predict(client, items_of("again", 600))
    assert [one["version"] for one in again] == [one["version"] for one in first]
    sequence(bound)
    logged = bound.log.predictions().filter(version="2", role="challenger")
    assert logged["propensity"].unique().to_list() == [0.3]
    assert bound.log.predictions().filter(version="1", role="champion")["propensity"].unique().to_list()
    assert logged.height == 2 * roles["2", "challenger"]


def test_a_retried_request_gets_the_recorded_answer_after_a_new_routing(
    route: Callable[..., None], open_service: Opener, eventually: Eventually
) -> None:
    route(Canary(share=0.5, version="2"))
    client = open_service()
    items = items_of("retried", 40)
    first = predict(client, items)
    assert {one["version"] for one in first} == {"1", "2"}
    route(ChampionOnly())
    eventually(follows(client, "champion_only"))
    assert predict(client, items) == first
    assert {one["version"] for one in predict(client, items_of("new", 40))} == {"1"}


def test_a_routing_set_at_run_time_beats_the_declaration(
    home: Settings, clock: SimulatedClock, open_service: Opener, eventually: Eventually
) -> None:
    declared = replace(PIPELINE, routing=Canary(share=0.5, version="2"))
    with Bound(declared, home, clock) as bound, Keeper(bound) as keeper:
        settle(keeper)
        client = open_service(declared)
        assert {one["version"] for one in predict(client, items_of("a", 40))} == {"1", "2"}
        bound.registry.routings.put(ChampionOnly(), by="test", reason="stop")
        settle(keeper)
        eventually(follows(client, "champion_only"))
        assert {one["version"] for one in predict(client, items_of("b", 40))} == {"1"}
        bound.registry.routings.put(None, by="test", reason="as declared")
        settle(keeper)
        eventually(follows(client, "canary"))


def test_a_shadow_is_scored_on_the_same_labels_and_never_becomes_an_example(
    route: Callable[..., None], open_service: Opener, bound: Bound, keeper: Keeper, clock: SimulatedClock
) -> None:
    route(Shadow(versions=("2",)))
    client, items = open_service(), items_of("seen", 300)
    start, first = bound.log.positions(), bound.log.stop()
    answers = predict(client, items)
    label(client, items)
    sequence(bound)
    settle(keeper)
    both = bound.log.served(start, bound.log.positions(), shadows=True)
    served, shadows = both.filter(role="champion"), both.filter(role="shadow")
    assert [one["output"] for one in answers] == served["output"].to_list()
    two = bound.registry.store.learner(bound.registry.store.get("2"))
    assert shadows["output"].to_list() == [two.predict_one(item["features"]) for item in items]
    assert shadows["version"].unique().to_list() == ["2"]
    same = ("position", "features", "label", "recorded_at")
    assert shadows.select(same).equals(served.select(same))
    examples = bound.log.examples(first)
    assert (examples.height, examples["role"].unique().to_list()) == (300, ["champion"])
    clock.advance_to(NOW + timedelta(days=4))
    table = performance_of(bound.log, bound.pipeline, clock.now(), last=10)
    value = {
        (row["version"], row["role"]): row["value"]
        for row in table.filter("cumulative", metric="roc_auc").to_dicts()
    }
    assert value["1", "champion"] > 0.9
    assert value["2", "shadow"] < 0.5


@pytest.fixture
def damaged(bound: Bound) -> Iterator[None]:
    """Damage the state of version 2, which belongs to the copied home; repair it afterwards."""
    version = bound.registry.store.get("2")
    where = bound.registry.mlflow.client.get_logged_model(version.model_id).artifact_location
    state = Path(where.removeprefix("file://")) / "artifacts" / "state.bin"
    good = state.read_bytes()
    state.write_bytes(good[:-1])
    yield
    state.write_bytes(good)


@pytest.mark.usefixtures("damaged")
def test_a_version_that_cannot_be_loaded_leaves_the_others_serving(
    bound: Bound, route: Callable[..., None], open_service: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    route(Canary(share=0.5, version="2"))
    assert "version 2 is left out" in caplog.text
    answers = predict(open_service(), items_of("all", 40))
    assert {(one["version"], one["role"]) for one in answers} == {("1", "champion")}
    sequence(bound)
    served = bound.log.predictions().filter(role="champion")
    assert served["propensity"].unique().to_list() == [1.0]


@pytest.fixture
def third(bound: Bound, home: Settings, clock: SimulatedClock) -> Callable[[Any], str]:
    """Return a function that makes a third version, of another model, beside the champion."""

    def made(model: Callable[[], object]) -> str:
        with Bound(replace(PIPELINE, model=model, promotion="by hand"), home, clock) as other:
            version = train(other, from_scratch=True).version
        assert version is not None
        return version.number

    return made


def test_a_shadow_that_fails_does_no_harm(
    third: Callable[[Any], str],
    route: Callable[..., None],
    open_service: Opener,
    bound: Bound,
    keeper: Keeper,
    caplog: pytest.LogCaptureFixture,
) -> None:
    route(Shadow(versions=(third(models_at_fault.failing), "2")))
    items = items_of("seen", 20)
    for item in items[5:15]:
        item["features"]["a"] = 1_000.0
    start = bound.log.positions()
    predict(open_service(), items)
    sequence(bound)
    settle(keeper)
    assert caplog.text.count("shadow 3 fails on a prediction: ZeroDivisionError") == 1
    end = bound.log.positions()
    assert {bound.log.shadows.places()[version].next for version in ("2", "3")} == {end}
    counts = Counter(one.version for one in bound.log.shadows.between(start, end))
    assert counts == {"2": 20, "3": 10}


def test_a_shadow_that_hangs_is_dropped_and_holds_nothing_up(
    third: Callable[[Any], str],
    route: Callable[..., None],
    open_service: Opener,
    bound: Bound,
    keeper: Keeper,
    eventually: Eventually,
) -> None:
    hangs = third(models_at_fault.hanging)
    route(Shadow(versions=(hangs, "2")))
    client, items = open_service(), items_of("seen", 20)
    predict(client, items)
    sequence(bound)
    settle(keeper)
    place = bound.log.shadows.places()[hangs].next
    items = [{**one, "id": f"more-{n}"} for n, one in enumerate(items)]
    items[7]["features"]["a"] = 1_000.0
    predict(client, items)
    sequence(bound)
    end = bound.log.positions()

    def waits() -> bool:
        keeper.step()
        return bound.log.shadows.places()["2"].next == end

    eventually(waits)  # the other shadow may come before it or after it
    bound.registry.promote("2", by="test", reason="while it hangs")
    keeper.step()
    assert published(bound).states[0].version == "2"
    route(Shadow(versions=(hangs,)))  # settles: it is dropped by then
    status = KeeperStatusFile(bound.pipeline.name, bound.settings).read()
    assert [(one.kind, one.version) for one in status.alarms] == [("shadow", hangs)]
    assert "was dropped" in status.alarms[0].what
    assert bound.log.shadows.places()[hangs].next == place
    assert status.raised["shadow"] >= 1
    route(ChampionOnly())
    assert KeeperStatusFile(bound.pipeline.name, bound.settings).read().alarms == ()


@pytest.fixture
def bandit(home: Settings, clock: SimulatedClock) -> Iterator[Bound]:
    declared = replace(PIPELINE, routing=Bandit(versions=("1", "2")))
    with Bound(declared, home, clock) as bound:
        yield bound


def test_a_bandit_moves_to_the_better_version_and_survives_a_restart(
    bandit: Bound, open_service: Opener, eventually: Eventually
) -> None:
    with Keeper(bandit) as keeper:
        settle(keeper)
        client = open_service(bandit.pipeline)
        waiting: list[dict[str, Any]] = []
        for part in range(4):
            sent = items_of(f"part-{part}", 100)
            predict(client, sent)
            label(client, waiting or sent[:1])  # labels come a round late
            waiting = sent
            sequence(bandit)
            settle(keeper)
        eventually(lambda: client.get("/pipelines").json()[0]["shares"]["1"] > 0.9)
        versions = Counter(one["version"] for one in predict(client, items_of("last", 200)))
        assert versions["1"] > 180
        known = published(bandit).bandit
        assert known.arm("1").labels + known.arm("2").labels == 300
        assert known.arm("1").pulls + known.arm("2").pulls == 400
    with Keeper(bandit) as keeper:
        settle(keeper)
        after = published(bandit).bandit
        assert after.arm("1").labels == known.arm("1").labels
        assert after.arm("1").gained_ppm == known.arm("1").gained_ppm


def test_the_best_shadow_is_promoted_when_its_labels_are_mature(
    home: Settings, clock: SimulatedClock, open_service: Opener
) -> None:
    declared = replace(PIPELINE, routing=Shadow(versions=("1",), serve_best=ServeBest(least=200)))
    with Bound(declared, home, clock) as bound, Keeper(bound) as keeper:
        bound.registry.promote("2", by="test", reason="the bad one")
        settle(keeper)
        client, items = open_service(declared), items_of("judged", 250)
        predict(client, items)
        label(client, items)
        sequence(bound)
        settle(keeper)
        clock.advance_to(NOW + timedelta(hours=23))
        settle(keeper)
        champion = bound.registry.champion()
        assert champion is not None
        assert champion.number == "2"
        clock.advance_to(NOW + timedelta(hours=25))
        settle(keeper)
        reign = bound.registry.championship.reign()
        assert reign is not None
        assert (reign.version, reign.by) == ("1", "serve_best")
        assert "roc_auc" in reign.reason
        assert published(bound).states[0].version == "1"
        assert published(bound).shadows == ()
