"""Keys: each scope allows its own requests and no others, and a revoked key is refused."""

import json
import re
import stat
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.loop.conftest import PIPELINE
from tests.serving.conftest import Opener
from tests.serving.running import running

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.audit import audited
from headwater.infra.store.database import Database
from headwater.loop.binding import Bound
from headwater.serving.access.authentication import Access
from headwater.serving.access.key_store import KeyStore, KeyWatch
from headwater.serving.access.keys import KeyFile, find_key
from headwater.serving.access.required_scopes import scopes_of
from headwater.serving.api.operation import SCOPES, Operation
from headwater.serving.api.operations import OPERATIONS
from headwater.serving.client.client import Client
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.process.app import create_app
from headwater.spec.errors import (
    ConflictError,
    DeclarationError,
    ForbiddenError,
    NotFoundError,
    UnauthorizedError,
)

Eventually = Callable[[Callable[[], bool]], None]
ONE = {"features": {"a": 1.0, "b": 2.0}}
TENSORS = {"inputs": [{"name": n, "shape": [1], "datatype": "FP64", "data": [1.0]} for n in ("a", "b")]}
ROUTES = [
    ("POST", "/predict", ONE, {"predict"}),
    ("POST", "/v2/models/line/infer", TENSORS, {"predict"}),
    ("GET", "/v2/models/line", None, {"predict", "read"}),
    ("GET", "/v2", None, {"predict", "read"}),
    ("POST", "/labels", {"prediction_id": "one", "value": True}, {"label"}),
    ("POST", "/queue/line/claim", {"person": "ada"}, {"label"}),
    ("GET", "/queue/line", None, {"read"}),
    ("GET", "/batch/line/ada", None, {"predict", "read"}),
    ("POST", "/batch/line/ada", ONE, {"predict"}),
    ("GET", "/predictions/one", None, {"read"}),
    ("GET", "/pipelines", None, {"read"}),
    ("GET", "/pipelines/line/routing", None, {"read", "operate"}),
    ("PUT", "/pipelines/line/routing", {"routing": None}, {"operate"}),
    ("PUT", "/pipelines/line/learning", {"paused": True}, {"operate"}),
    ("POST", "/pipelines/line/shadows/add", {"version": "1"}, {"operate"}),
    ("POST", "/pipelines/line/champion", {"rollback": True}, {"operate"}),
    ("POST", "/pipelines/line/quarantine", {"spans": [{"start": 1, "stop": 2}]}, {"operate"}),
    ("GET", "/openapi.json", None, {"read"}),
    ("GET", "/docs", None, {"read"}),
    ("GET", "/nothing", None, {"read"}),
    ("POST", "/nothing", {}, {"operate"}),
    ("DELETE", "/predict/", None, {"operate"}),
]


@pytest.fixture
def store(home: Settings, clock: SimulatedClock) -> Iterator[KeyStore]:
    database = Database(home.operational_url)
    yield KeyStore(database, clock)
    database.close()


@pytest.fixture
def watch(home: Settings) -> Iterator[KeyWatch]:
    with KeyWatch(home) as watch:
        yield watch


def bearing(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_each_scope_allows_what_it_says_and_nothing_else(
    keeper: Keeper, store: KeyStore, home: Settings, open_service: Opener
) -> None:
    made = {scope: store.add(scope, [scope], by="test") for scope in SCOPES}
    with KeyWatch(home):
        client = open_service()
    for method, path, body, allowed in ROUTES:
        for scope, key in made.items():
            answer = client.request(method, path, json=body, headers=bearing(key))
            let_in = answer.status_code not in {401, 403}
            assert let_in == (scope in allowed), (method, path, scope, answer.text)
        for headers in ({}, bearing("hw_1_wrong"), bearing(made["read"] + "x"), {"authorization": "x"}):
            answer = client.request(method, path, json=body, headers=headers)
            assert answer.status_code == 401, (method, path, headers)
            assert answer.headers["www-authenticate"].startswith("Bearer")
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
@pytest.mark.parametrize("end", ["", "\n"], ids=["as it is", "with a line end"])
def test_every_operation_needs_its_own_scopes(operation: Operation[Any, Any], end: str) -> None:
    path = re.sub(r"{[^}]+}", "line", operation.path) + end
    assert scopes_of(operation.method, path) == frozenset(operation.scopes)


def test_a_refusal_is_a_problem_or_an_error_of_the_protocol(
    store: KeyStore, home: Settings, open_service: Opener
) -> None:
    key = store.add("reader", ["read"], by="test")
    with KeyWatch(home):
        client = open_service()
    ours = client.post("/predict", json=ONE, headers=bearing(key))
    assert ours.headers["content-type"] == "application/problem+json"
    assert (ours.json()["status"], ours.json()["code"]) == (403, "ForbiddenError")
    assert "predict" in ours.json()["hint"]
    theirs = client.post("/v2/models/line/infer", json=TENSORS)
    assert theirs.headers["content-type"] == "application/json"
    assert list(theirs.json()) == ["error"]
    address = str(client.base_url)
    with Client(address, key=key) as bad, pytest.raises(ForbiddenError, match="'reader' is for read"):
        bad.predict({"a": 1.0, "b": 2.0})
    with Client(address) as none, pytest.raises(UnauthorizedError, match="headwater keys add"):
        none.predict({"a": 1.0, "b": 2.0})


def test_a_label_is_recorded_under_the_name_of_its_key(
    keeper: Keeper, store: KeyStore, home: Settings, open_service: Opener
) -> None:
    key = store.add("billing@shop", ["label", "read"], by="test")
    with KeyWatch(home):
        client = open_service()
    for body in (
        {"prediction_id": "one", "value": True},
        {"labels": [{"prediction_id": "one", "value": False}]},
    ):
        assert client.post("/labels", json=body, headers=bearing(key)).status_code == 200
    (first, second) = client.get("/predictions/one", headers=bearing(key)).json()["labels"]
    assert first["label"]["by"] == second["label"]["by"] == "billing@shop"


def test_the_first_key_closes_a_running_service_and_revoking_ends_a_key(
    keeper: Keeper, store: KeyStore, watch: KeyWatch, client: httpx.Client, eventually: Eventually
) -> None:
    def status(key: str | None) -> int:
        headers = {} if key is None else bearing(key)
        return client.post("/predict", json=ONE, headers=headers).status_code

    assert status(None) == 200
    first, second = (store.add(name, ["predict"], by="test") for name in ("first", "second"))
    eventually(lambda: status(None) == 401)
    eventually(lambda: status(first) == status(second) == 200)
    store.revoke("first", by="test")
    eventually(lambda: status(first) == 401)
    assert status(second) == 200
    store.revoke("second", by="test")
    eventually(lambda: status(second) == 401)
    assert status(None) == 401  # no key is left, and the service is not open again
    again = store.add("first", ["predict"], by="test")
    eventually(lambda: status(again) == 200)
    assert status(first) == 401


def test_a_needed_key_is_needed_before_the_first_is_made(
    keeper: Keeper, home: Settings, clock: SimulatedClock
) -> None:
    with running(create_app([PIPELINE], home, clock, Access(needs_key=True))) as client:
        assert client.post("/predict", json=ONE).status_code == 401


def test_a_damaged_or_lost_key_file_lets_no_request_in(
    keeper: Keeper, store: KeyStore, home: Settings, client: httpx.Client, eventually: Eventually
) -> None:
    def status(key: str) -> int:
        return client.post("/predict", json=ONE, headers=bearing(key)).status_code

    key = store.add("one", ["predict"], by="test")
    file, hashes = KeyFile(home), store.hashes()
    file.publish(hashes)
    eventually(lambda: status(key) == 200)
    file.path.write_bytes(b"{")
    eventually(lambda: status(key) == 401)
    file.publish(hashes)
    eventually(lambda: status(key) == 200)
    file.path.unlink()
    eventually(lambda: status(key) == 401)


def test_no_file_holds_a_key(
    store: KeyStore, watch: KeyWatch, home: Settings, eventually: Eventually
) -> None:
    key = store.add("one", ["read"], by="test")
    file = KeyFile(home)
    eventually(lambda: bool((found := file.read()) and found.keys))
    secret = key.split("_", 2)[2].encode()
    assert len(secret) >= 40
    for path in home.root.rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes(), path
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_only_the_whole_key_is_recognised(store: KeyStore) -> None:
    key = store.add("one", ["read"], by="test").encode()
    held = {one.number: one for one in store.hashes().keys}
    known = find_key(held, key)
    assert known is not None
    assert known.name == "one"
    number = key.split(b"_")[1]
    for wrong in (b"", key[:-1], key + b"_", key.swapcase(), b"hw_", b"hw_%s_" % number, b"hw_9_x"):
        assert find_key(held, wrong) is None
    assert find_key(held, b"hw_%s_x" % (b"9" * 5_000)) is None


def test_names_and_scopes_are_checked(store: KeyStore) -> None:
    for name, scopes, words in (
        ("", ["read"], "cannot name"),
        ("a b", ["read"], "cannot name"),
        ("a", [], "allows nothing"),
        ("a", ["read", "everything"], "'everything'"),
    ):
        with pytest.raises(DeclarationError, match=words):
            store.add(name, scopes, by="test")
    assert store.keys() == []
    store.add("a", ["read", "predict", "read"], by="test")
    assert store.keys()[0].scopes == ("predict", "read")
    with pytest.raises(ConflictError, match="'a'"):
        store.add("a", ["read"], by="test")
    with pytest.raises(NotFoundError, match="there is a"):
        store.revoke("b", by="test")


def test_keys_are_audited_and_their_secrets_are_not(
    store: KeyStore, home: Settings, bound: Bound
) -> None:
    key = store.add("one", ["read"], by="ada")
    store.revoke("one", by="bob")
    rows = audited(bound.database, 2)
    assert [(row.by, row.action, row.detail["key"]) for row in rows] == [
        ("ada", "add key", "one"),
        ("bob", "revoke key", "one"),
    ]
    assert key.split("_", 2)[2] not in json.dumps([row.detail for row in rows])


def test_each_key_has_its_rate_over_all_workers(
    keeper: Keeper, store: KeyStore, home: Settings, clock: SimulatedClock
) -> None:
    def statuses(client: httpx.Client, key: str, count: int) -> list[int]:
        headers = bearing(key)
        return [client.post("/predict", json=ONE, headers=headers).status_code for _ in range(count)]

    keys = [store.add(name, ["predict"], by="test") for name in ("one", "two")]
    access = Access(rate=2.0)
    with (
        KeyWatch(home),
        running(create_app([PIPELINE], home, clock, access)) as one,
        running(create_app([PIPELINE], home, clock, access)) as another,
    ):
        assert statuses(one, keys[0], 1) + statuses(another, keys[0], 2) == [200, 200, 429]
        assert statuses(one, keys[1], 3) == [200, 200, 429]  # a bucket each, over both workers
        refused = one.post("/predict", json=ONE, headers=bearing(keys[0]))
        assert (refused.headers["retry-after"], refused.json()["code"]) == ("1", "TooOftenError")
        clock.advance_to(clock.now() + timedelta(seconds=0.5))
        assert statuses(another, keys[0], 2) == [200, 429]
        clock.advance_to(clock.now() + timedelta(hours=1))
        assert statuses(one, keys[0], 3) == [200, 200, 429]
        assert one.get("/v2/health/live").status_code == 200


def test_without_keys_all_share_one_rate(keeper: Keeper, home: Settings, clock: SimulatedClock) -> None:
    with running(create_app([PIPELINE], home, clock, Access(rate=0.5))) as client:
        answers = [client.post("/predict", json=ONE) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert answers[1].headers["retry-after"] == "2"
    with pytest.raises(DeclarationError, match="lets nobody in"):
        create_app([PIPELINE], home, clock, Access(rate=0.0))
