"""Batch answers over HTTP: looked up by key, counted when read, with the online model as fallback."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import polars as pl
import pytest
from msgspec.structs import replace
from tests.loop.conftest import PIPELINE
from tests.serving.conftest import NOW, Opener
from tests.serving.metrics.test_metrics import totals

from headwater.features.batch.batch_files import BatchFiles
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.open_storage import open_storage
from headwater.loop.batch.batch_predict import batch_predict, batch_runs
from headwater.loop.binding import Bound
from headwater.serving.client.client import AsyncClient, Client
from headwater.serving.http.openapi import document
from headwater.serving.keeper.batch_publisher import BatchPublisher
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.published.published_batch import PublishedBatch
from headwater.spec.data.records import FeatureValue
from headwater.spec.data.source import QuerySource
from headwater.spec.errors import DigestError, NotFoundError
from headwater.spec.serving.batch import BatchPrediction

KEYS = ["customer-17", "c-1", "c/2", "ü 3", "c%0A4\u00a0"]
ROWS = {"now": KEYS}
FEATURES = {"a": 1.0, "b": 2.0}
Eventually = Callable[[Callable[[], bool]], None]


def customers() -> pl.DataFrame:
    keys = ROWS["now"]
    return pl.DataFrame({"customer": keys, "a": [0.1 * n for n in range(len(keys))], "b": 1.0})


SCORED = replace(
    PIPELINE,
    batch=BatchPrediction(
        source=QuerySource(customers),
        key="customer",
        every="1h",
        fall_through=True,
        max_age="2h",
        rows=2,
    ),
)


@pytest.fixture(autouse=True)
def five_keys() -> None:
    ROWS["now"] = KEYS


@pytest.fixture
def watch(keeper: Keeper, scored: Bound) -> BatchPublisher:
    """A publisher that has copied the first run to this host."""
    batch_predict(scored)
    watch = BatchPublisher([scored])
    watch.step()
    return watch


@pytest.fixture
def scored(keeper: Keeper, bound: Bound, home: Settings, clock: SimulatedClock) -> Iterator[Bound]:
    with Bound(SCORED, home, clock, bound.database) as scored:
        yield scored


@pytest.fixture
def client(watch: BatchPublisher, open_service: Opener) -> httpx.Client:
    return open_service(SCORED)


def quoted(key: str) -> str:
    from urllib.parse import quote  # noqa: PLC0415

    return f"/batch/line/{quote(key, safe='')}"


def test_each_key_is_looked_up_with_its_age(
    client: httpx.Client, clock: SimulatedClock, scored: Bound
) -> None:
    clock.advance_to(NOW + timedelta(minutes=30))
    (run,) = batch_runs(scored).newest(9)
    for key in KEYS:
        answer = client.get(quoted(key))
        assert answer.status_code == 200
        found = answer.json()
        assert (found["key"], found["found"], found["run"]) == (key, "batch", run.id)
        assert (found["version"], found["role"], found["age_s"]) == ("1", "champion", 1800.0)
        assert found["id"] == f"batch-{run.id}-{key}"
        assert found["probabilities"]["true"] == found["output"]
    recorded = client.get(f"/predictions/batch-{run.id}-c-1").json()["prediction"]
    assert recorded["output"] == client.get(quoted("c-1")).json()["output"]
    assert recorded["entity"] == {"customer": "c-1"}
    assert recorded["features"] == {"a": 0.1, "b": 1.0}


@pytest.mark.parametrize(
    "path", ["/batch/line/nobody", "/batch/line/", "/batch/line/%0A", "/batch/other/c-1"]
)
def test_a_key_without_an_answer_is_a_404(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["hint"]


def test_an_answer_that_is_too_old_is_a_404(client: httpx.Client, clock: SimulatedClock) -> None:
    clock.advance_to(NOW + timedelta(hours=2))
    assert client.get(quoted("c-1")).status_code == 200
    clock.advance_to(NOW + timedelta(hours=2, seconds=1))
    answer = client.get(quoted("c-1"))
    assert answer.status_code == 404
    assert "of at most 2h" in answer.json()["detail"]
    assert client.post(quoted("c-1"), json={"features": FEATURES}).json()["found"] == "online"


def test_a_key_without_an_answer_falls_through(client: httpx.Client, scored: Bound) -> None:
    before = scored.log.inbox.count_after(0)
    known = client.post(quoted("c-1"), json={"features": FEATURES, "id": "mine"}).json()
    assert (known["found"], known["age_s"]) == ("batch", 0.0)
    assert scored.log.inbox.count_after(0) == before
    answer = client.post(quoted("new"), json={"features": FEATURES, "id": "mine"}).json()
    assert (answer["found"], answer["id"], answer["key"]) == ("online", "mine", "new")
    online = client.post("/predict", json={"features": FEATURES, "id": "other"}).json()
    assert answer["output"] == online["output"]
    recorded = client.get("/predictions/mine").json()["prediction"]
    assert (recorded["entity"], recorded["features"]) == ({"customer": "new"}, FEATURES)


def test_a_repeated_request_gets_the_online_answer_again(
    client: httpx.Client, scored: Bound, watch: BatchPublisher, eventually: Eventually
) -> None:
    body = {"features": FEATURES, "id": "mine"}
    first = client.post(quoted("new"), json=body).json()
    ROWS["now"] = ["new"]
    batch_predict(scored)
    watch.step()
    eventually(lambda: client.get(quoted("new")).status_code == 200)
    again = client.post(quoted("new"), json=body).json()
    assert (again["found"], again["id"], again["output"]) == ("online", "mine", first["output"])
    assert client.post(quoted("new"), json={"features": FEATURES}).json()["found"] == "batch"


@pytest.mark.parametrize(
    ("key", "body", "names"),
    [
        ("new", {"features": {"a": 1.0}}, "features.: it lacks `b`"),
        ("c-1", {"features": {"a": 1.0, "b": "x"}}, "features.b"),
        ("c-1", {}, "it lacks `features`"),
        ("c-1", {"features": FEATURES, "entity": {}}, "unknown field `entity`"),
        ("k" * 151, {"features": FEATURES}, "key: it has 151"),
        ("", {"features": FEATURES}, "key: it has 0"),
    ],
)
def test_an_invalid_field_is_named(
    key: str, body: object, names: str, client: httpx.Client, scored: Bound
) -> None:
    before = scored.log.inbox.count_after(0)
    answer = client.post(quoted(key), json=body)
    assert answer.status_code == 422
    assert names.replace(".:", ":") in answer.json()["detail"]
    assert scored.log.inbox.count_after(0) == before


def test_without_falling_through_a_post_is_not_allowed(
    watch: BatchPublisher, open_service: Opener
) -> None:
    assert SCORED.batch is not None
    client = open_service(replace(SCORED, batch=replace(SCORED.batch, fall_through=False)))
    assert client.get(quoted("c-1")).status_code == 200
    assert client.post(quoted("c-1"), json={"features": FEATURES}).status_code == 405
    assert client.get("/openapi.json").json()["paths"]["/batch/line/{key}"].keys() == {"get"}


def test_a_pipeline_without_a_batch_is_a_404(keeper: Keeper, open_service: Opener) -> None:
    answer = open_service().get(quoted("c-1"))
    assert (answer.status_code, "scores no table" in answer.json()["detail"]) == (404, True)


def test_the_newest_run_is_opened_without_a_restart(
    client: httpx.Client,
    scored: Bound,
    watch: BatchPublisher,
    eventually: Eventually,
    clock: SimulatedClock,
) -> None:
    old = client.get(quoted("c-1")).json()
    clock.advance_to(NOW + timedelta(minutes=10))
    ROWS["now"] = ["c-9", "c-1"]
    run = batch_predict(scored)
    assert client.get(quoted("c-1")).json() == old | {"age_s": 600.0}  # until the keeper has it
    watch.step()
    eventually(lambda: client.get(quoted("c-9")).status_code == 200)
    assert client.get(quoted("c-1")).json()["run"] == run.id
    assert client.get(quoted("customer-17")).status_code == 404


def test_reads_are_counted_once_by_all_workers_and_survive_them(
    watch: BatchPublisher, open_service: Opener, scored: Bound, home: Settings
) -> None:
    one, another = open_service(SCORED), open_service(SCORED)
    for client, keys in ((one, KEYS[:2]), (another, KEYS[1:3]), (one, KEYS[:1])):
        for key in keys:
            client.get(quoted(key))
    one.get(quoted("nobody"))
    another.post(quoted("somebody"), json={"features": FEATURES})
    another.post(quoted("c-1"), json={"features": FEATURES})
    for client in (one, another):
        found = totals(client)
        assert found["headwater_batch_predictions line"] == 5
        assert found["headwater_batch_predictions_read line"] == 3
        assert found["headwater_batch_age_seconds line"] == 0
        assert found["headwater_batch_lookups_total batch line"] == 6
        assert found["headwater_batch_lookups_total none line"] == 1
        assert found["headwater_batch_lookups_total online line"] == 1
    watch.step()
    assert batch_runs(scored).newest(1)[0].read == 3
    again = BatchPublisher([scored])  # the keeper and a worker begin anew
    fresh = open_service(SCORED)
    fresh.get(quoted(KEYS[4]))
    again.step()
    assert batch_runs(scored).newest(1)[0].read == 4
    assert totals(fresh)["headwater_batch_predictions_read line"] == 4
    (run,) = PublishedBatch("line", home).count_reads()
    PublishedBatch("line", home).reads(run).unlink()  # what is lost here takes nothing back
    again.step()
    assert batch_runs(scored).newest(1)[0].read == 4


def test_reads_of_the_run_before_are_counted_too(
    client: httpx.Client, scored: Bound, watch: BatchPublisher, home: Settings
) -> None:
    client.get(quoted("c-1"))
    batch_predict(scored)
    watch.step()
    watch.step()
    batch_predict(scored)
    watch.step()
    assert [run.read for run in batch_runs(scored).newest(9)] == [1, 0, 0]
    assert len(PublishedBatch("line", home).count_reads()) == 2  # the newest, and the one before


def test_a_table_that_was_changed_is_refused(
    client: httpx.Client, scored: Bound, watch: BatchPublisher, tmp_path: Path
) -> None:
    served = client.get(quoted("c-1")).json()
    run = batch_predict(scored)
    (tmp_path / "other").write_bytes(b"SQLite format 3\0")
    BatchFiles(open_storage(scored.settings), "line").write_table(run.id, tmp_path / "other")
    with pytest.raises(DigestError, match=run.id):
        watch.step()
    assert client.get(quoted("c-1")).json()["run"] == served["run"]


def test_published_answers_serve_before_a_keeper_or_champion(
    watch: BatchPublisher, open_service: Opener, home: Settings
) -> None:
    (home.root / "live" / "line" / "serving.json").unlink()
    client = open_service(SCORED)
    assert client.get(quoted("c-1")).status_code == 200
    assert client.post(quoted("c-1"), json={"features": FEATURES}).status_code == 200
    refused = client.post(quoted("new"), json={"features": FEATURES})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


def test_the_client_gets_batch_and_online_answers(client: httpx.Client) -> None:
    with Client(str(client.base_url)) as batch_client:
        assert batch_client.batch("c/2", pipeline="line").found == "batch"
        with pytest.raises(NotFoundError, match="no answer"):
            batch_client.batch("new", pipeline="line")
        made = batch_client.batch("new", pipeline="line", features=dict[str, FeatureValue](FEATURES))
        assert made.found == "online"
        assert batch_client.prediction(made.id).prediction is not None


def test_the_async_client_gets_batch_and_online_answers(client: httpx.Client) -> None:
    async def work() -> None:
        async with AsyncClient(str(client.base_url)) as batch_client:
            assert (await batch_client.batch("c/2", pipeline="line")).found == "batch"
            with pytest.raises(NotFoundError, match="no answer"):
                await batch_client.batch("new", pipeline="line")
            given = dict[str, FeatureValue](FEATURES)
            assert (await batch_client.batch("new", pipeline="line", features=given)).found == "online"

    asyncio.run(work())


def test_a_look_up_opens_no_database() -> None:
    code = (
        "import sys, headwater.serving.http.batch_routes\n"
        "print([n for n in ('sqlalchemy', 'alembic', 'sklearn', 'mlflow') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_each_operation_of_two_batch_pipelines_has_an_id_of_its_own() -> None:
    paths = document([SCORED, replace(SCORED, name="other")])["paths"]
    ids = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert "batch_answer_other" in ids
    assert len(set(ids)) == len(ids)
