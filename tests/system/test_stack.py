"""The real stack, in a process of its own, from its start to its end."""

import os
import random
import signal
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import msgspec
import pytest
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.deployments import run_deployment
from prefect.states import Running
from tests.patience import PATIENCE_S, await_
from tests.system.schedules import ANCHOR, unhurried
from tests.system.up import Up
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from headwater.features.log import FeatureLog
from headwater.flows.deployments import deploy
from headwater.flows.stack.record import Addresses, find_stack
from headwater.flows.stack.runs import run_flow
from headwater.flows.stack.silent_runs import close_silent
from headwater.flows.stack.stack import running_stack
from headwater.infra.operator_key import operator_key_file
from headwater.infra.processes import fetch
from headwater.infra.settings import Settings
from headwater.spec.data.records import Label, Prediction
from headwater.spec.duration import duration
from headwater.spec.errors import NotFoundError, ServerError
from headwater.spec.loading import load_pipeline

pytestmark = [
    pytest.mark.system,
    # Hints of MLflow on log_model's arguments.
    pytest.mark.filterwarnings("ignore:.*:UserWarning:mlflow"),
]

EVERY = unhurried()
TOY = f"""
from sklearn.linear_model import SGDClassifier

from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.triggers.schedule import Every
from headwater.spec.updating.update import Stateful


def model():
    return SGDClassifier(loss="log_loss", random_state=0)


toy = Pipeline(
    name="toy",
    task="binary",
    features=(Feature("x", float), Feature("y", float)),
    label=LabelRule(wait="1d"),
    model=model,
    update=Stateful(),
    triggers=(Every("{EVERY}"),),
)
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("stack") / "home")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pipelines") / "headwater_toy_of_stack.py"
    path.write_text(TOY)
    return f"{path}:toy"


@pytest.fixture(scope="module")
def up(settings: Settings) -> Iterator[Up]:
    up = Up(settings)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.end(signal.SIGTERM)


def test_a_deployment_runs_on_the_worker_and_shows_everywhere(up, toy, settings):
    _feed(toy, settings, 0, 300)
    stack = up.addresses()
    for page in (stack.prefect_ui, stack.mlflow_ui):
        assert b"<html" in _fetched(page, "/")
    deployed = deploy([toy], settings, collect_every=EVERY)
    assert deploy([toy], settings, collect_every=EVERY) == deployed  # again is the same
    assert [each.name for each in deployed] == ["fine-tune/toy", "collect/toy"]
    with up.prefect() as client:
        assert [len(client.read_deployment(each.id).schedules) for each in deployed] == [1, 1]
        with up.told():
            run = run_deployment("fine-tune/toy", timeout=0)
        state = await_(lambda: _final(client, run.id))
        assert state.is_completed(), (state, (settings.root / "logs" / "worker.log").read_text())
        artifacts = {each.key: str(each.data) for each in client.read_artifacts()}
    version = _versions(stack)[0]
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert version["version"] == "1"
    assert tags["headwater.examples"] == "0:300"
    assert "300" in artifacts["toy-collected"]
    assert tags["headwater.digest"] in artifacts["toy-update"]
    made = await_(lambda: _assets(up, {"headwater://toy/examples", "headwater://toy/model"}))
    model = made["headwater://toy/model"]
    assert model["payload"]["version"] == "1"
    assert "headwater://toy/examples" in [each["prefect.resource.id"] for each in model["related"]]


def test_no_page_elsewhere_gets_anything_of_prefect_or_mlflow(up):
    """Each request as a browser sends it: from another page, and by a name that was rebound."""
    stack = up.addresses()
    prefect, mlflow = httpx.URL(stack.prefect_ui), httpx.URL(stack.mlflow_ui)
    makes = [(prefect, "/api/flows/")]
    makes += [(mlflow, f"/{kind}/2.0/mlflow/experiments/create") for kind in ("api", "ajax-api")]
    with httpx.Client(timeout=60) as browser:
        for own, path in makes:
            foreign = [
                {"host": f"rebound.example:{own.port}"},
                {"host": "10.rebound.example"},
                {"origin": "http://evil.example", "sec-fetch-site": "cross-site"},
                {"origin": "null"},
                {"origin": f"http://127.0.0.1:{(own.port or 0) - 1}", "sec-fetch-site": "same-site"},
                {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
            ]
            for lines, method in product(foreign, ("GET", "POST", "DELETE", "OPTIONS")):
                for asked in ("/", path):
                    body = {"name": "from-elsewhere"}
                    answer = browser.request(method, own.join(asked), headers=lines, json=body)
                    assert answer.status_code == 403, (method, asked, lines)
                    assert "access-control-allow-origin" not in answer.headers
            for name in ("127.0.0.1", "localhost"):  # what its own pages do, and what a link does
                page = own.copy_with(host=name)
                lines = {"origin": str(page).rstrip("/"), "sec-fetch-site": "same-origin"}
                auth = None if own == mlflow else _basic(up.key())
                answer = browser.post(page.join(path), headers=lines, json={}, auth=auth)
                assert answer.status_code in {400, 422}
                link = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
                link["sec-fetch-site"] = "cross-site"
                assert b"<html" in browser.get(page, headers=link, follow_redirects=True).content
        made = browser.post(f"{stack.prefect_api}/flows/filter", json={}, auth=_basic(up.key()))
        made = made.raise_for_status().text
        search = mlflow.join("/api/2.0/mlflow/experiments/search?max_results=100")
        assert "from-elsewhere" not in made + browser.get(search).raise_for_status().text


def test_a_socket_is_for_prefects_own_pages(up):
    """Over it come events, of which automations make runs."""
    stack = up.addresses()
    address = f"{stack.prefect_api.replace('http', 'ws', 1)}/events/in"
    localhost = stack.prefect_ui.replace("127.0.0.1", "localhost")
    for origin in (None, stack.prefect_ui, localhost):
        for key, let_in in ((up.key(), True), ("hw_1_wrong", False), (None, False)):
            with connect(address, origin=origin, subprotocols=["prefect"]) as socket_:
                socket_.send(msgspec.json.encode({"type": "auth", "token": key}).decode())
                if let_in:
                    assert msgspec.json.decode(socket_.recv(PATIENCE_S)) == {"type": "auth_success"}
                else:
                    with pytest.raises(ConnectionClosedError, match="1008"):
                        socket_.recv(PATIENCE_S)
    for origin in ("http://evil.example", "null", stack.mlflow_ui):
        with pytest.raises(InvalidStatus, match="403"), connect(address, origin=origin):
            pytest.fail("it is let in")


def test_prefect_needs_the_key_of_the_home_and_nothing_shows_it(up):
    """Its own pages ask for it; it stands in no table, log, command line or database."""
    stack, key = up.addresses(), up.key()
    with httpx.Client(base_url=stack.prefect_api, timeout=PATIENCE_S) as client:
        assert client.get("/health").status_code == 200
        for sent in (None, _basic("hw_1_wrong"), _basic(f"headwater:{key}")):
            assert client.post("/flows/filter", json={}, auth=sent).status_code == 401
        answer = client.post("/flows/filter", json={}, auth=_basic(key))
        assert answer.status_code == 200
        assert key not in client.get("/admin/settings", auth=_basic(key)).raise_for_status().text
    assert str(operator_key_file(up.settings)) in up.output.read_text()
    for path in up.settings.root.rglob("*"):
        if path.is_file() and path != operator_key_file(up.settings):
            assert key.encode() not in path.read_bytes(), path
    assert not any(key in " ".join(each.cmdline()) for each in up.left())


def test_schedules_make_runs(up, toy, settings):
    with up.prefect() as client:
        # Prefect 3.8's scheduler fails with SQLAlchemy 2.1
        for each in deploy([toy], settings, collect_every=EVERY):
            runs = await_(lambda: _scheduled(client, each.id))  # noqa: B023 - called at once
            late_s = (run.expected_start_time.timestamp() - ANCHOR.timestamp() for run in runs)
            every_s = duration(EVERY).total_seconds()
            assert {one % every_s for one in late_s} == {every_s / 2 if each.flow == "collect" else 0}


def test_a_run_that_sends_heartbeats_is_not_closed(up):
    stack = up.addresses()
    with up.prefect() as client:
        run = client.create_flow_run(
            Flow(lambda: None, name="asleep"), tags=["headwater", "asleep"], state=Running()
        )
        now = datetime.now(UTC)
        _heartbeat(stack, up.key(), str(run.id), now + timedelta(minutes=3))
        assert close_silent(client, "asleep", now + timedelta(minutes=6)) == []
        assert close_silent(client, "asleep", now + timedelta(minutes=9)) == [run.name]


def test_a_flow_of_this_process_is_a_run_of_the_stack(up, toy, settings):
    stack = up.addresses()
    _feed(toy, settings, 300, 500)
    ended = run_flow("fine-tune", toy, settings)
    assert ended["version"]["parent"] == "1"
    assert ended["version"]["examples"] == {"start": 300, "stop": 500}
    assert run_flow("fine-tune", toy, settings)["version"] is None  # nothing new
    assert {version["version"] for version in _versions(stack)} == {"1", "2"}
    with up.prefect() as client:
        runs = [run for run in client.read_flow_runs() if "asleep" not in run.tags]
        assert len([run for run in runs if run.deployment_id is None]) == 2
    with pytest.raises(NotFoundError, match="no flow 'finetune'"):
        run_flow("finetune", toy, settings)


def test_a_second_start_is_refused_and_another_home_s_on_a_port_that_is_taken(up, settings, tmp_path):
    stack = up.addresses()
    with (
        pytest.raises(ServerError, match=f"runs already.*{stack.prefect_ui}") as raised,
        running_stack(settings),
    ):
        pytest.fail("two stacks on one home")
    assert str(up.process.pid) in raised.value.what
    port, other = urlsplit(stack.prefect_ui).port or 0, Settings(home=tmp_path / "other")
    with pytest.raises(ServerError, match=f"port {port} is taken"), running_stack(other, port):
        pytest.fail("two stacks on one port")
    assert find_stack(settings) == stack  # the first one goes on


def test_ctrl_c_leaves_no_process(up, settings):
    addresses = up.addresses()
    assert len(up.left()) >= 3
    assert up.end(signal.SIGINT) == 0
    assert up.left() == []
    assert find_stack(settings) is None
    assert not (settings.root / "stack.json").exists()
    shown = up.output.read_text()
    assert addresses.prefect_ui in shown
    assert addresses.mlflow_ui in shown


@pytest.fixture
def again(up: Up, settings: Settings) -> Iterator[Up]:
    """Another stack, on the databases that the first one left."""
    if up.process.poll() is None:
        up.end(signal.SIGTERM)
    again = Up(settings)
    try:
        yield again
    finally:
        if again.process.poll() is None:
            again.end(signal.SIGTERM)


def test_servers_and_worker_that_die_and_a_killed_up_are_started_again(again, toy, settings):
    stack = again.addresses()
    assert len(_versions(stack)) == 2
    before = set(_pids(settings).values())
    for pid in before:
        os.killpg(pid, signal.SIGKILL)
    await_(lambda: not before & set(_pids(settings).values()))
    _fetched(stack.prefect_ui, "/api/health")
    with again.prefect() as client, again.told():
        run = run_deployment("collect/toy", timeout=0)
        assert await_(lambda: _final(client, run.id)).is_completed()
    assert len(_versions(stack)) == 2
    assert find_stack(settings) == stack  # where it was
    assert "worker ended with status -9, starts again in 1 s" in again.output.read_text()
    again.end(signal.SIGKILL)
    killed = again.left()
    third = Up(settings)
    assert len(_versions(third.addresses())) == 2
    assert not {one.pid for one in killed} & {one.pid for one in third.left()}
    assert third.end(signal.SIGTERM) == 0
    assert third.left() == []


def test_ctrl_c_while_starting_leaves_no_process(tmp_path):
    up = Up(Settings(home=tmp_path / "home"))
    await_((tmp_path / "home" / "stack.json").exists)
    assert find_stack(up.settings) is None  # not yet
    assert up.end(signal.SIGINT) != 0
    assert up.left() == []


def test_the_next_stack_ends_the_processes_of_a_killed_one(tmp_path):
    settings = Settings(home=tmp_path / "home")
    up = Up(settings)
    await_((settings.root / "stack.json").exists)
    up.end(signal.SIGKILL)
    orphans = up.left()
    assert orphans
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ServerError, match=f"port {port} is taken"),
            running_stack(settings, mlflow_port=port),
        ):
            pytest.fail("the port is taken")
    assert up.left() == []


def _feed(reference: str, settings: Settings, start: int, stop: int) -> None:
    log = FeatureLog(load_pipeline(reference), settings)
    chance, now = random.Random(start), datetime.now(UTC)
    rows = [(f"p{i}", chance.random(), chance.random()) for i in range(start, stop)]
    log.record(
        [
            Prediction(id=i, features={"x": x, "y": y}, output=0.5, served_at=now, version="")
            for i, x, y in rows
        ]
    )
    log.label([Label(prediction_id=i, value=x > y, known_at=now) for i, x, y in rows])
    log.close()
    log.database.close()


def _pids(settings: Settings) -> dict[str, int]:
    return dict(msgspec.json.decode((settings.root / "stack.json").read_bytes())["pids"])


def _basic(key: str) -> Callable[[httpx.Request], httpx.Request]:
    """Give the key as Prefect wants it: it is all of what is encoded, without a name before it."""

    def bears(request: httpx.Request) -> httpx.Request:
        request.headers["authorization"] = f"Basic {b64encode(key.encode()).decode()}"
        return request

    return bears


def _final(client: SyncPrefectClient, run_id: Any) -> Any:
    state = client.read_flow_run(run_id).state
    return state if state is not None and state.is_final() else None


def _heartbeat(stack: Addresses, key: str, run: str, at: datetime) -> None:
    """Tell that a run lives, as its process does, and wait until the server has kept it."""
    event = {
        "id": str(uuid4()),
        "occurred": at.isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
    }
    told = {"filter": {"id": {"id": [event["id"]]}, "occurred": {"until": event["occurred"]}}}
    with httpx.Client(base_url=stack.prefect_api, timeout=PATIENCE_S, auth=_basic(key)) as client:
        client.post("/events", json=[event]).raise_for_status()
        await_(lambda: client.post("/events/filter", json=told).json()["total"])


def _versions(stack: Addresses) -> list[Any]:
    path = "/api/2.0/mlflow/model-versions/search?filter=name%3D%27toy%27"
    return list(msgspec.json.decode(_fetched(stack.mlflow_ui, path)).get("model_versions", []))


def _fetched(page: str, path: str) -> bytes:
    """Give an answer of a server, which may be about to start again."""
    return await_(lambda: fetch(urlsplit(page).port or 0, path))


def _assets(up: Up, keys: set[str]) -> dict[str, Any] | None:
    """Give the newest materialisation of each asset, once all of them are made."""
    wanted = {"filter": {"event": {"name": ["prefect.asset.materialization.succeeded"]}}}
    port = urlsplit(up.addresses().prefect_api).port or 0
    answer = fetch(port, "/api/events/filter", msgspec.json.encode(wanted), basic=up.key())
    events = msgspec.json.decode(answer or b"{}").get("events", [])
    made = {event["resource"]["prefect.resource.id"]: event for event in reversed(events)}
    return made if keys <= set(made) else None


def _scheduled(client: SyncPrefectClient, deployment_id: str) -> list[Any]:
    runs = client.read_flow_runs()
    return [run for run in runs if run.auto_scheduled and str(run.deployment_id) == deployment_id]
