"""Batch features: a look-up returns the table's value, and the log records the looked-up value."""

import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest
from msgspec.structs import replace
from tests.homes import copy_home
from tests.serving.conftest import NOW, Opener
from tests.serving.flow import history_of
from tests.serving.http.test_fuzz import finds_nothing
from tests.serving.shop import ROWS, SHOP, later, number, publish, put, request_of

from headwater.infra.clock import SimulatedClock, SystemClock
from headwater.infra.settings import Settings
from headwater.loop.batch.materialise import materialise, table_of
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.rebuild import rebuild
from headwater.loop.training.update import train
from headwater.serving.client.client import Client
from headwater.serving.client.replay_client import replay
from headwater.serving.keeper.keeper import Keeper
from headwater.spec.data.feature import Feature
from headwater.spec.errors import ConflictError, NotEnoughError, SchemaError
from headwater.spec.pipeline import Pipeline

Wait = Callable[[Callable[[], bool]], None]
NULLABLE = replace(SHOP, features=(SHOP.features[0], replace(SHOP.features[1], nullable=True)))


@pytest.fixture(scope="module")
def shop_trained(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Path:
    settings = Settings(home=tmp_path_factory.mktemp("shop") / "home")
    shutil.copy(mlflow_template, settings.root / "mlflow.sqlite")
    with Bound(SHOP, settings, SimulatedClock(NOW)) as bound:
        bound.log.import_history(history_of(("a", "spent"), 0, 200))
        collect(bound.log)
        train(bound)
        Keeper(bound).step()
    return settings.root


@pytest.fixture
def home(tmp_path: Path, shop_trained: Path) -> Settings:
    copy_home(shop_trained, tmp_path / "home")
    return Settings(home=tmp_path / "home")


@pytest.fixture
def shop(home: Settings, clock: SimulatedClock) -> Iterator[Bound]:
    with Bound(SHOP, home, clock) as bound:
        yield bound


@pytest.fixture
def open_shop(shop: Bound, open_service: Opener, eventually: Wait) -> Callable[..., httpx.Client]:
    """Return a function that opens a service with a first materialisation."""

    def opener(pipeline: Pipeline = SHOP, **spent: float) -> httpx.Client:
        made = put(shop, **(spent or {"ada": 10.0, "bob": 20.0}))
        client = open_service(pipeline)
        assert number(client) == made.number
        return client

    return opener


def recorded(client: httpx.Client, id_: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/predictions/{id_}").json()["prediction"]
    return found


def test_the_record_has_the_looked_up_value_and_its_age(
    shop: Bound, open_shop: Callable[..., httpx.Client], eventually: Wait
) -> None:
    client = open_shop()
    later(shop, minutes=90)
    answer = client.post("/predict", json=request_of("ada", id="one")).json()
    champion = shop.registry.champion()
    assert champion is not None
    learner = shop.registry.store.learner(champion)
    assert answer["output"] == learner.predict_one({"a": 1.0, "spent": 10.0})
    found = recorded(client, "one")
    assert found["features"] == {"a": 1.0, "spent": 10.0}
    assert found["ages_s"] == {"spending": 5400.0}
    collect(shop.log)
    frame = shop.log.predictions().filter(prediction_id="one")
    assert frame["features"].to_list() == [{"a": 1.0, "spent": 10.0}]
    assert frame["ages_s"].to_list() == ['{"spending":5400.0}']
    age = 'headwater_feature_age_seconds{pipeline="shop",table="spending"} 5400.0'
    eventually(lambda: age in client.get("/metrics").text)  # ages are sampled from time to time


def test_a_replay_sends_the_keys_by_which_features_are_looked_up(
    open_shop: Callable[..., httpx.Client],
) -> None:
    client = open_shop()
    rows = [("one", 1.0, "ada", True), ("two", 2.0, "bob", None)]
    events = pl.DataFrame(rows, schema=["id", "a", "customer", "label"], orient="row").with_columns(
        served_at=pl.lit(NOW), known_at=pl.when(pl.col("label")).then(pl.lit(NOW))
    )
    with Client(str(client.base_url)) as sender:
        *_, sent = replay(sender, SHOP, events, float("inf"))
    assert (sent.predictions, sent.labels) == (2, 1)
    assert recorded(client, "one")["features"] == {"a": 1.0, "spent": 10.0}
    assert recorded(client, "two")["features"] == {"a": 2.0, "spent": 20.0}


def test_another_materialisation_is_looked_up_without_a_restart(
    shop: Bound, open_shop: Callable[..., httpx.Client], eventually: Wait
) -> None:
    client = open_shop()
    client.post("/predict", json=request_of("ada", id="one"))
    later(shop, minutes=1)
    put(shop, ada=11.0)
    eventually(lambda: number(client) == 2)
    client.post("/predict", json=request_of("ada", id="two"))
    assert recorded(client, "one")["features"]["spent"] == 10.0
    assert recorded(client, "two")["features"]["spent"] == 11.0
    assert recorded(client, "two")["ages_s"] == {"spending": 0.0}


def test_a_repeated_request_gets_the_same_answer(
    shop: Bound, open_shop: Callable[..., httpx.Client], eventually: Wait
) -> None:
    client = open_shop()
    first = client.post("/predict", json=request_of("ada", id="one")).json()
    put(shop, ada=11.0)
    eventually(lambda: number(client) == 2)
    assert client.post("/predict", json=request_of("ada", id="one")).json() == first
    put(shop, bob=1.0)  # ada is gone
    eventually(lambda: number(client) == 3)
    assert client.post("/predict", json=request_of("ada", id="one")).json() == first
    assert client.post("/predict", json=request_of("ada", 2.0, id="one")).status_code == 422
    assert client.post("/predict", json=request_of("bob", id="one")).status_code == 409
    assert recorded(client, "one")["features"] == {"a": 1.0, "spent": 10.0}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (request_of("eve"), "entity.customer: table 'spending' does not know 'eve', and features.spent"),
        (request_of("") | {"entity": {}}, "entity.customer: it is missing"),
        ({"features": {"a": 1.0}}, "entity.customer: it is missing"),
        (request_of("ada", spent=1.0), "spent"),
        ({"features": {"a": 1.0, "spent": 3.0}, "entity": {"customer": "ada"}}, "`spent`"),
        ({"entity": {"customer": "ada"}}, "features: it is missing"),
        ({"predictions": [request_of("ada"), request_of("eve")]}, "predictions[1].entity.customer"),
    ],
)
def test_a_key_that_cannot_be_looked_up_is_refused_and_never_logged(
    shop: Bound, open_shop: Callable[..., httpx.Client], body: dict[str, Any], named: str
) -> None:
    client, before = open_shop(), shop.log.counts().unsequenced
    answer = client.post("/predict", json=body)
    assert answer.status_code == 422
    assert named in answer.json()["detail"]
    assert shop.log.counts().unsequenced == before


def test_a_value_that_is_too_old_is_a_503_that_names_the_field(
    shop: Bound, open_shop: Callable[..., httpx.Client]
) -> None:
    client = open_shop()
    later(shop, hours=2)
    assert client.post("/predict", json=request_of("ada")).status_code == 200
    later(shop, seconds=1)
    answer = client.post("/predict", json=request_of("ada"))
    assert (answer.status_code, answer.json()["code"]) == (503, "StaleError")
    assert answer.headers["retry-after"] == "1"
    assert "features.spent: its value in table 'spending' is 7,201 s old" in answer.json()["detail"]
    assert client.get("/v2/health/ready").status_code == 200


def test_before_the_first_materialisation_the_service_is_not_ready(
    shop: Bound, open_service: Opener, eventually: Wait
) -> None:
    client = open_service(SHOP)
    answer = client.post("/predict", json=request_of("ada"))
    assert (answer.status_code, answer.json()["code"]) == (503, "NotReadyError")
    assert "headwater features materialise" in answer.json()["hint"]
    assert client.get("/v2/health/ready").status_code == 503
    assert "headwater_feature_age_seconds{" not in client.get("/metrics").text
    put(shop, ada=1.0)
    eventually(lambda: client.get("/v2/health/ready").status_code == 200)
    assert client.post("/predict", json=request_of("ada")).status_code == 200


def test_look_ups_are_counted_by_result(shop: Bound, open_shop: Callable[..., httpx.Client]) -> None:
    client = open_shop()
    for customer in ("ada", "bob", "eve"):
        client.post("/predict", json=request_of(customer))
    later(shop, hours=3)
    client.post("/predict", json=request_of("ada"))
    metrics = client.get("/metrics").text
    for result, count in (("found", 2), ("unknown", 1), ("stale", 1)):
        label = f'{{pipeline="shop",result="{result}",table="spending"}}'
        assert f"headwater_feature_lookups_total{label} {count}.0" in metrics


def test_the_inference_protocol_takes_entity_keys_as_tensors(
    open_shop: Callable[..., httpx.Client],
) -> None:
    client = open_shop()
    declared = client.get("/v2/models/shop").json()["inputs"]
    assert [(one["name"], one["datatype"]) for one in declared] == [
        ("a", "FP64"),
        ("entity.customer", "BYTES"),
    ]
    tensors = [
        {"name": "a", "datatype": "FP64", "shape": [2], "data": [1.0, 2.0]},
        {"name": "entity.customer", "datatype": "BYTES", "shape": [2], "data": ["ada", "bob"]},
    ]
    answer = client.post("/v2/models/shop/infer", json={"id": "x", "inputs": tensors})
    assert answer.status_code == 200
    found = [recorded(client, f"x-{row}") for row in range(2)]
    assert [one["features"]["spent"] for one in found] == [10.0, 20.0]
    assert [one["entity"] for one in found] == [{"customer": "ada"}, {"customer": "bob"}]
    tensors[1]["data"] = [1, 2]
    refused = client.post("/v2/models/shop/infer", json={"inputs": tensors})
    assert (refused.status_code, "entity" in refused.json()["error"]) == (422, True)


def test_looked_up_values_are_learned_and_rebuild(
    shop: Bound, open_shop: Callable[..., httpx.Client]
) -> None:
    client = open_shop()
    for row in range(20):
        client.post("/predict", json=request_of("ada" if row % 2 else "bob", float(row), id=f"p{row}"))
        client.post("/labels", json={"prediction_id": f"p{row}", "value": row % 2 == 0})
    later(shop, minutes=1)
    put(shop, ada=500.0, bob=500.0)  # what the table holds now is of no matter
    collect(shop.log)
    learned = shop.log.examples(200, 220)
    assert learned["features"].struct.field("spent").to_list() == [20.0, 10.0] * 10
    assert train(shop).version is not None
    assert rebuild("shop", "2", shop.settings).equal


def test_schemathesis_finds_nothing(shop: Bound, open_service: Opener, tmp_path: Path) -> None:
    ranged = replace(
        NULLABLE,
        features=(
            Feature("a", float, low=-5.0, high=5.0),
            NULLABLE.features[1],
        ),
    )
    put(shop, **{"customer-17": 10.0})
    client = open_service(ranged)
    paths = ("--include-path", "/predict", "--include-path", "/pipelines", "--include-path", "/metrics")
    finds_nothing(client, tmp_path, *paths)


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([], NotEnoughError, "no rows"),
        ([{"customer": "a", "spent": None}], SchemaError, "null in 1 rows"),
        ([{"customer": "a", "spent": -1.0}], SchemaError, "outside what it declares in 1 rows"),
        ([{"customer": "a", "spent": float("nan")}], SchemaError, "numbers are finite"),
        ([{"customer": None, "spent": 1.0}], SchemaError, "null, empty, longer"),
        ([{"customer": "a", "spent": n} for n in (1.0, 2.0)], SchemaError, "share a key: a"),
    ],
)
def test_an_invalid_source_leaves_the_published_table(
    shop: Bound,
    open_shop: Callable[..., httpx.Client],
    rows: list[dict[str, Any]],
    error: type[Exception],
    words: str,
) -> None:
    client = open_shop()
    ROWS[:] = rows
    with pytest.raises(error, match=words):
        materialise(shop, table_of(shop, "spending"))
    publish(shop)
    assert client.post("/predict", json=request_of("ada", id="one")).status_code == 200
    assert recorded(client, "one")["features"]["spent"] == 10.0


def test_a_materialisation_older_than_the_newest_is_not_published(shop: Bound, home: Settings) -> None:
    with Bound(SHOP, home, SimulatedClock(NOW - timedelta(hours=1))) as behind:
        put(shop, ada=10.0)
        with pytest.raises(ConflictError, match="later reading"):
            put(behind, ada=9.0)


def test_every_record_has_the_values_of_one_materialisation(
    home: Settings, open_service: Opener, eventually: Wait
) -> None:
    """Each materialisation has its own number as the value; a record's age names its materialisation."""
    customers = [f"c{n}" for n in range(5)]
    held: dict[datetime, float] = {}
    with Bound(SHOP, home, SystemClock()) as bound:

        def again(value: float) -> None:
            made = put(bound, **{name: value + n / 10 for n, name in enumerate(customers)})
            held[made.read_at] = value

        again(0.0)
        client = open_service(SHOP, clock=SystemClock())
        ended = threading.Event()

        def keep_on() -> None:
            value = 1.0
            while not ended.is_set():
                again(value)
                value += 1.0

        thread = threading.Thread(target=keep_on)
        thread.start()
        sent, statuses, looked_in = 0, set(), set[int | None]()
        try:
            while len(looked_in) < 5 or sent < 200:  # between two that are seen, a request meets one
                looked_in.add(number(client))
                items = [
                    request_of(name, id=f"{sent}-{name}")
                    for name in (*customers, *reversed(customers[:2]))
                ]
                items = [item | {"id": f"{sent}-{n}"} for n, item in enumerate(items)]
                statuses.add(client.post("/predict", json={"predictions": items}).status_code)
                sent += len(items)
        finally:
            ended.set()
            thread.join()
        assert statuses == {200}
        collect(bound.log)
        found = bound.log.predictions().filter(~bound.log.predictions()["ages_s"].is_null())
    met = set()
    assert found.height == sent
    for row in found.iter_rows(named=True):
        age = timedelta(seconds=msgspec.json.decode(row["ages_s"])["spending"])
        value = held[row["served_at"] - age]  # to the microsecond
        met.add(value)
        customer = msgspec.json.decode(row["entity"])["customer"]
        assert row["features"]["spent"] == value + customers.index(customer) / 10
    assert len(met) > 2
