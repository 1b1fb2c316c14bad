"""Published files that a worker cannot load for a reason that passes: it loads them again by itself."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from tests.loop.conftest import PIPELINE
from tests.patience import await_
from tests.serving.conftest import NOW, START, Opener
from tests.serving.http.test_batch_routes import SCORED, quoted
from tests.serving.metrics.test_metrics import ONE, totals
from tests.serving.shop import SHOP, put

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.batch.batch_predict import batch_predict
from headwater.loop.binding import Bound
from headwater.serving.keeper.batch_publisher import BatchPublisher
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.metrics.counters import Counters
from headwater.serving.metrics.service_metrics import PipelineMetrics
from headwater.serving.published.published_batch import PublishedBatch
from headwater.serving.published.published_models import PublishedModels, ServedState, ServingFile
from headwater.serving.worker.feature_lookup import FeatureLookup
from headwater.spec.data.records import Output

Eventually = Callable[[Callable[[], bool]], None]


@pytest.fixture
def live(home: Settings) -> PublishedModels:
    return PublishedModels(PIPELINE, home)


def status(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/pipelines").json()[0]
    return found


def of(live: PublishedModels) -> ServingFile:
    found = live.read()
    assert found is not None
    return found


def copied(live: PublishedModels) -> ServedState:
    """Put the champion's files there once more, by another name."""
    first = of(live).states[0]
    for kind in ("state", "recipe", "proof"):
        content = (live.folder / f"{first.name}.{kind}").read_bytes()
        (live.folder / f"other.{kind}").write_bytes(content)
    return replace(first, name="other", learned_to=201)


def test_a_state_whose_file_comes_later_serves_then(
    keeper: Keeper, client: httpx.Client, live: PublishedModels, eventually: Eventually
) -> None:
    late = copied(live)
    state = (live.folder / "other.state").rename(live.folder / "late")
    live.publish(replace(of(live), number=2, states=(late,)))
    eventually(lambda: "is gone from" in (status(client)["swap_failure"] or ""))
    assert client.post("/predict", json=ONE).status_code == 200
    assert status(client)["learned_to"] == 200
    state.rename(live.folder / "other.state")
    eventually(lambda: status(client)["learned_to"] == 201)
    assert status(client)["swap_failure"] is None
    assert totals(client)["headwater_swap_failures_total line"] == 1


def test_a_challenger_that_was_left_out_is_taken_in_once_it_loads(
    keeper: Keeper, client: httpx.Client, live: PublishedModels, eventually: Eventually
) -> None:
    late = replace(copied(live), version="2", role="challenger")
    state = (live.folder / "other.state").rename(live.folder / "late")
    serving = of(live)
    live.publish(replace(serving, number=2, epoch=7, states=(*serving.states, late)))
    eventually(lambda: status(client)["epoch"] == 7)
    assert "version 2 is gone from" in status(client)["swap_failure"]
    state.rename(live.folder / "other.state")
    eventually(lambda: status(client)["swap_failure"] is None)


def test_a_serving_file_that_is_torn_is_read_again(
    keeper: Keeper, client: httpx.Client, live: PublishedModels, eventually: Eventually
) -> None:
    copied(live)
    whole = live.encode(replace(of(live), epoch=7))
    with live.path.open("r+b") as file:
        file.truncate(20)
    eventually(lambda: "cannot be read" in (status(client)["swap_failure"] or ""))
    live.path.write_bytes(whole)
    eventually(lambda: status(client)["epoch"] == 7)


def test_a_lack_of_memory_passes(
    keeper: Keeper,
    client: httpx.Client,
    live: PublishedModels,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_self: PublishedModels, _state: ServedState) -> None:
        raise MemoryError

    with monkeypatch.context() as scarce:
        scarce.setattr(PublishedModels, "load", fail)
        live.publish(replace(of(live), number=2, states=(copied(live),)))
        eventually(lambda: status(client)["swap_failure"] == "MemoryError")
        assert client.post("/predict", json=ONE).status_code == 200
    eventually(lambda: status(client)["learned_to"] == 201)


def test_a_state_that_breaks_when_it_is_tried_does_not_end_following(
    keeper: Keeper,
    client: httpx.Client,
    live: PublishedModels,
    eventually: Eventually,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_self: PublishedModels, _state: ServedState) -> Output:
        raise ZeroDivisionError("of the model's own")

    with monkeypatch.context() as broken:
        broken.setattr(PublishedModels, "load", fail)
        live.publish(replace(of(live), number=2, states=(copied(live),)))
        eventually(lambda: "does not load: ZeroDivisionError" in (status(client)["swap_failure"] or ""))
    live.publish(replace(of(live), number=3))
    eventually(lambda: status(client)["learned_to"] == 201)


def test_a_keeper_publishes_anew_what_it_finds_torn(
    bound: Bound, live: PublishedModels, open_service: Opener
) -> None:
    live.path.parent.mkdir(parents=True)
    live.path.write_bytes(b'{"content": {')
    with Keeper(bound) as keeper:
        keeper.step()
    assert open_service().post("/predict", json=ONE).status_code == 200


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Bound]:
    with Bound(SHOP, Settings(home=tmp_path / "shop"), SimulatedClock(START)) as bound:
        yield bound


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_table_whose_file_is_torn_is_looked_up_once_it_is_whole(shop: Bound, share: float) -> None:
    counters = Counters(shop.settings)
    looking = FeatureLookup(SHOP, shop.settings, PipelineMetrics(counters, "shop"))
    put(shop, ada=1.0)
    (file,) = (shop.settings.root / "live").rglob("*.sqlite")
    content = file.read_bytes()

    def found() -> tuple[int | None, str | None]:
        asyncio.run(looking.follow(NOW))
        (table,) = looking.status(NOW)
        return table.number, table.failure

    file.write_bytes(content[: int(share * len(content))])
    number, failure = found()
    assert number is None
    assert "cannot be read" in str(failure)
    file.write_bytes(content)
    await_(lambda: found() == (1, None), found)
    looking.close()
    counters.close()


@pytest.mark.parametrize("kind", ["table", "reads"])
def test_batch_answers_whose_file_comes_later_are_found_then(
    keeper: Keeper, bound: Bound, home: Settings, open_service: Opener, eventually: Eventually, kind: str
) -> None:
    with Bound(SCORED, home, bound.clock, bound.database) as scored:
        run = batch_predict(scored)
        BatchPublisher([scored]).step()
    batch = PublishedBatch("line", home)
    file = batch.table(run.id) if kind == "table" else batch.reads(run.id)
    content = file.read_bytes()
    file.write_bytes(b"")
    client = open_service(SCORED)
    assert client.get(quoted("c-1")).status_code == 404
    file.write_bytes(content)
    eventually(lambda: client.get(quoted("c-1")).status_code == 200)
