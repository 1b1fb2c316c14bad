"""Operate models over HTTP and by the client, as an operator does; each ruling is audited."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.patience import PATIENCE_S
from tests.serving.access.test_keys import bearing
from tests.serving.conftest import Opener
from tests.serving.examples import fill
from tests.serving.keeper.test_catch_up import settle
from tests.serving.keeper.test_online_learning import EACH

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.audit import audited
from headwater.loop.binding import Bound
from headwater.loop.training.update import train
from headwater.serving.access.key_store import KeyStore, KeyWatch
from headwater.serving.client.client import AsyncClient, Client
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.keeper.operator_socket import OperatorSocket
from headwater.spec.errors import ConflictError, NotFoundError, SchemaError
from headwater.spec.recipe import OffsetRange
from headwater.spec.serving.routing import Canary, ChampionOnly, Shadow

Eventually = Callable[[Callable[[], bool]], None]


@pytest.fixture
def each(home: Settings, clock: SimulatedClock) -> Iterator[Bound]:
    """A pipeline with two versions, the second of which is champion, and a socket for operators."""
    with Bound(EACH, home, clock) as bound:
        with bound.log.sequencer() as sequencer:
            fill(bound, 0, 40)
            sequencer.drain()
        train(bound)
        with OperatorSocket([EACH], home, clock):
            yield bound


@pytest.fixture
def keeper(each: Bound) -> Iterator[Keeper]:
    with Keeper(each) as keeper:
        settle(keeper)
        yield keeper


@pytest.fixture
def client(keeper: Keeper, open_service: Opener) -> httpx.Client:
    return open_service(EACH)


def state(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/pipelines").json()[0]
    return found


def test_every_ruling_is_followed_and_audited(
    client: httpx.Client, each: Bound, keeper: Keeper, eventually: Eventually
) -> None:
    def ruled(method: str, path: str, **body: object) -> Any:
        answer = client.request(method, f"/pipelines/line/{path}", json=body)
        assert answer.status_code == 200, answer.text
        settle(keeper)
        return answer.json()

    canary = {"type": "canary", "share": 0.5, "version": "1"}
    assert ruled("PUT", "routing", routing=canary, reason="a try")["number"] == 1
    eventually(lambda: state(client)["shares"] == {"1": 0.5, "2": 0.5})
    ruled("PUT", "routing", routing=None)
    ruled("POST", "shadows/add", version="1")
    eventually(lambda: state(client)["shadows"] == ["1"])
    assert client.get("/pipelines/line/routing").json()["shadows"] == [{"version": "1", "behind": 0}]
    roles = {v["number"]: v["roles"] for v in client.get("/pipelines/line/versions").json()}
    assert roles == {"1": ["previous", "shadow"], "2": ["champion"]}
    ruled("POST", "shadows/drop", version="1")
    eventually(lambda: state(client)["shadows"] == [])
    assert ruled("PUT", "learning", paused=True)["pause"]["offset"] == 240
    assert state(client)["learning"]["paused"]
    assert ruled("PUT", "learning", paused=False)["pause"] is None
    assert not state(client)["learning"]["paused"]
    spans = [{"start": 203, "stop": 205}]
    assert ruled("POST", "quarantine", spans=spans)["quarantined"] == spans
    assert ruled("POST", "champion", rollback=True, quarantine=[])["version"] == "1"
    eventually(lambda: state(client)["version"] == "3")  # version 1, caught up
    assert ruled("POST", "champion", version="2")["version"] == "2"
    eventually(lambda: state(client)["version"] == "2")
    rulings = [(row.action, row.pipeline) for row in audited(each.database, 50) if row.by == "over HTTP"]
    actions = ["route", "route", "route", "route", "pause learning", "resume learning", "quarantine"]
    assert rulings == [(action, "line") for action in [*actions, "roll back", "promote"]]
    first = next(row for row in audited(each.database, 50) if row.action == "route")
    assert (first.detail["routing"], first.detail["reason"]) == ("canary:0.5:1", "a try")
    assert first.at == each.clock.now()


def test_a_ruling_is_audited_under_the_name_of_its_key(
    client: httpx.Client, each: Bound, home: Settings, eventually: Eventually
) -> None:
    store = KeyStore(each.database, each.clock)
    key, reader = store.add("ops", ["operate"], by="test"), store.add("eye", ["read"], by="test")
    with KeyWatch(home):
        body = {"paused": True}
        path = "/pipelines/line/learning"
        eventually(lambda: client.get(path).status_code == 401)
        assert client.put(path, json=body, headers=bearing(reader)).status_code == 403
        assert client.get(path, headers=bearing(reader)).status_code == 200
        assert client.put(path, json=body, headers=bearing(key)).status_code == 200
        assert client.get(path, headers=bearing(key)).json()["pause"]["by"] == "ops"
    assert audited(each.database, 1)[0].by == "ops"


REFUSED: list[tuple[str, str, object, int, str]] = [
    ("PUT", "routing", {"routing": {"type": "duel"}}, 422, "duel"),
    ("PUT", "routing", {"routing": {"type": "canary", "share": 2.0}}, 422, "share=2.0"),
    ("PUT", "routing", {"routing": {"type": "shadow", "versions": ["7"]}}, 404, "'7'"),
    ("PUT", "routing", {"routing": None, "expected": 4}, 409, "ruling 0"),
    ("PUT", "routing", {"routing": None, "reason": "x" * 501}, 422, "reason"),
    ("PUT", "routing", {"routing": None, "reason": "a\u0000b"}, 422, "reason"),
    ("PUT", "routing", {}, 422, "`routing`"),
    ("PUT", "routing", {"routing": None, "more": 1}, 422, "`more`"),
    ("POST", "shadows/add", {"version": "champion"}, 422, "version"),
    ("POST", "shadows/add", {"version": "9"}, 404, "'9'"),
    ("PUT", "learning", {"paused": "yes"}, 422, "paused"),
    ("POST", "quarantine", {"spans": []}, 422, "spans"),
    ("POST", "quarantine", {"spans": [{"start": 5, "stop": 5}]}, 404, "[5, 5)"),
    ("POST", "quarantine", {"spans": [{"start": 239, "stop": 241}]}, 404, "[0, 240)"),
    ("POST", "champion", {"version": "9"}, 404, "'9'"),
    ("POST", "champion", {}, 422, "version"),
    ("POST", "champion", {"version": "1", "quarantine": [{"start": 1, "stop": 2}]}, 422, "rollback"),
    ("POST", "champion", {"version": "1\n"}, 422, "version"),
    ("POST", "shadows/drop", {"version": "1\n"}, 422, "version"),
    ("POST", "shadows/drop", {"version": "9"}, 404, "'9'"),
    ("PUT", "learning", {"paused": True, "reason": "why\n"}, 422, "reason"),
    ("GET", "versions?last=0", None, 422, "last"),
]


def test_an_invalid_request_is_refused_and_changes_nothing(client: httpx.Client, each: Bound) -> None:
    before = audited(each.database, 100)
    for method, path, body, status, words in REFUSED:
        answer = client.request(method, f"/pipelines/line/{path}", json=body)
        assert answer.status_code == status, (path, body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert words in answer.json()["detail"], (path, body, answer.text)
    assert client.get("/pipelines/nothing/routing").status_code == 404
    assert client.put("/pipelines/line/routing", content=b"{" * 30_000).status_code == 413
    assert audited(each.database, 100) == before


def test_a_request_while_the_keeper_is_away_is_to_be_sent_again(
    bound: Bound, open_service: Opener
) -> None:
    client = open_service(EACH)
    answer = client.get("/pipelines/line/routing")
    assert (answer.status_code, answer.json()["code"]) == (503, "NotReadyError")


def test_the_client_sends_rulings(client: httpx.Client, each: Bound) -> None:
    with Client(str(client.base_url), timeout_s=PATIENCE_S) as mine:
        operate = mine.operate
        assert operate.routing("line").routing == ChampionOnly()
        assert operate.add_shadow("line", "1").routing == Shadow(versions=("1",))
        assert operate.drop_shadow("line", "1").routing == ChampionOnly()
        status = operate.route("line", Canary(share=0.1, version="1"), reason="a try")
        assert status.history[-1].reason == "a try"
        with pytest.raises(SchemaError, match="has no shadows"):
            operate.add_shadow("line", "1")
        with pytest.raises(ConflictError, match="set meanwhile"):
            operate.route("line", None, expected=1)
        assert operate.route("line", None).routing == ChampionOnly()
        assert operate.pause("line").pause is not None
        assert operate.resume("line").pause is None
        span = OffsetRange(1, 3)
        assert operate.quarantine("line", [span]).quarantined == operate.learning("line").quarantined
        assert operate.learning("line").quarantined == (span,)
        assert operate.roll_back("line").version == "1"
        assert operate.promote("line", "2").previous == "1"
        assert [one.number for one in operate.versions("line", last=1)] == ["2"]
        with pytest.raises(NotFoundError, match="'9'"):
            operate.promote("line", "9")


def test_the_async_client_sends_rulings(client: httpx.Client) -> None:
    async def work() -> None:
        async with AsyncClient(str(client.base_url), timeout_s=PATIENCE_S) as mine:
            operate = mine.operate
            assert (await operate.routing("line")).number == 0
            await operate.add_shadow("line", "1")
            assert (await operate.drop_shadow("line", "1")).routing == ChampionOnly()
            assert (await operate.route("line", Shadow(versions=("1",)))).number == 3
            assert (await operate.pause("line")).pause is not None
            assert (await operate.resume("line")).pause is None
            learning = await operate.quarantine("line", [OffsetRange(1, 3)])
            assert learning == await operate.learning("line")
            assert (await operate.roll_back("line", to="1")).version == "1"
            assert (await operate.promote("line", "2")).version == "2"
            assert len(await operate.versions("line")) == 2

    asyncio.run(work())


def test_a_repeated_request_is_executed_once(client: httpx.Client, each: Bound) -> None:
    """A client repeats a request that got no answer; the keeper must not execute it twice."""
    for _ in range(2):
        with Client(str(client.base_url), timeout_s=PATIENCE_S) as mine:
            mine.operate.roll_back("line", to="1")
            mine.operate.pause("line")
            mine.operate.add_shadow("line", "2")
            mine.operate.drop_shadow("line", "1")
    actions = [row.action for row in audited(each.database, 50)]
    assert [actions.count(one) for one in ("roll back", "pause learning", "route")] == [1, 1, 1]
