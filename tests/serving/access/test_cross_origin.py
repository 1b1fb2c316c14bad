"""Pages of listed hosts may read answers, others none; without a list nothing is shared."""

from collections.abc import Iterator

import httpx
import pytest
from tests.loop.conftest import PIPELINE
from tests.serving.access.test_keys import ONE, ROUTES, bearing, store
from tests.serving.running import running

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.serving.access.key_store import KeyStore, KeyWatch
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.process.app import create_app

__all__ = ["store"]

SHOP = {"origin": "https://shop.example", "sec-fetch-site": "cross-site"}
ASKS = {"access-control-request-method": "PUT", "access-control-request-headers": "authorization,x-y"}
OTHERS = ["http://evil.example", "null", "http://localhost:3001", "https://shop.example.evil.example"]


@pytest.fixture
def listing(keeper: Keeper, home: Settings, clock: SimulatedClock) -> Iterator[httpx.Client]:
    lists = Settings(home=home.root, hosts="shop.example,localhost:3000")
    with running(create_app([PIPELINE], lists, clock)) as client:
        yield client


def shared(answer: httpx.Response) -> list[str]:
    return sorted(name for name in answer.headers if name.startswith("access-control-"))


def test_a_listed_page_reads_every_answer(listing: httpx.Client) -> None:
    for origin in ("https://shop.example", "http://shop.example:8443", "http://localhost:3000"):
        for method, path, body, _ in [*ROUTES, ("POST", "/predict?x=1", ONE, {"predict"})]:
            answer = listing.request(method, path, json=body, headers={**SHOP, "origin": origin})
            assert answer.status_code != 403, (method, path)
            assert answer.headers["access-control-allow-origin"] == origin, (method, path)
            assert "retry-after" in answer.headers["access-control-expose-headers"]
            assert answer.headers["vary"] == "origin"
            assert "access-control-allow-credentials" not in answer.headers
            assert len(answer.headers.get_list("access-control-allow-origin")) == 1


def test_a_listed_page_gets_leave_for_json_and_keys(listing: httpx.Client) -> None:
    for path in ("/predict", "/labels", "/pipelines/line/routing", "/v2/models/line/infer", "/nothing"):
        answer = listing.options(path, headers=SHOP | ASKS)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == SHOP["origin"]
        assert answer.headers["access-control-allow-methods"] == "GET, POST, PUT"
        assert answer.headers["access-control-allow-headers"] == "authorization,x-y"
    asked = listing.options("/predict", headers=SHOP)  # no preflight
    assert asked.status_code == 405
    without = listing.options("/predict", headers={**SHOP, "access-control-request-method": "POST"})
    assert "access-control-allow-headers" not in without.headers


@pytest.mark.parametrize("origin", OTHERS)
def test_no_other_page_reads_anything(listing: httpx.Client, origin: str) -> None:
    lines = {"origin": origin}
    for method, path, body, _ in ROUTES:
        answer = listing.request(method, path, json=body, headers=lines)
        assert (answer.status_code, shared(answer)) == (403, []), (method, path)
        leave = listing.options(path, headers=lines | ASKS)
        assert (leave.status_code, shared(leave)) == (403, []), path
    several = [("origin", SHOP["origin"]), ("origin", origin)]
    assert shared(listing.post("/predict", json=ONE, headers=several)) == []
    assert shared(listing.post("/predict", json=ONE)) == []


def test_without_a_list_nothing_is_shared(client: httpx.Client, keeper: Keeper) -> None:
    own = {"origin": str(client.base_url).rstrip("/")}
    for lines in ({}, own, SHOP):
        for answer in (
            client.post("/predict", json=ONE, headers=lines),
            client.get("/pipelines", headers=lines),
            client.options("/predict", headers={**lines, **ASKS}),
        ):
            assert shared(answer) == []
            assert "vary" not in answer.headers


def test_a_listed_page_asks_with_its_key_where_one_is_needed(
    keeper: Keeper, store: KeyStore, home: Settings, clock: SimulatedClock
) -> None:
    key = store.add("shop", ["predict"], by="test")
    lists = Settings(home=home.root, hosts="shop.example")
    with KeyWatch(home), running(create_app([PIPELINE], lists, clock)) as client:
        assert client.options("/predict", headers=SHOP | ASKS).status_code == 200
        without = client.post("/predict", json=ONE, headers=SHOP)
        assert (without.status_code, without.headers["access-control-allow-origin"]) == (
            401,
            SHOP["origin"],
        )
        answer = client.post("/predict", json=ONE, headers=SHOP | bearing(key))
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (
            200,
            SHOP["origin"],
        )
        evil = client.post(
            "/predict", json=ONE, headers=bearing(key) | {"origin": "http://evil.example"}
        )
        assert (evil.status_code, shared(evil)) == (200, [])
