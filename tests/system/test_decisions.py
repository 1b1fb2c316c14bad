"""From drift to a champion on the real stack; an automation that fails, and a worker that dies."""

import random
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import msgspec
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import PrefectHTTPStatusError
from tests.patience import PATIENCE_S, await_
from tests.system.schedules import unhurried
from tests.system.up import Up, tell_all

from headwater.cli import main
from headwater.flows.automations import failures_now
from headwater.flows.deployments import deploy
from headwater.flows.dispatch import request_again
from headwater.flows.events import tell_decided
from headwater.flows.stack.prefect_environment import environment, within
from headwater.flows.stack.runs import run_flow
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.spec.data.records import Label, Prediction
from headwater.spec.loading import load_pipeline
from headwater.spec.updating.decision import Decision

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore:.*:UserWarning:mlflow"),  # hints on log_model's arguments
]

WATCHED = """
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.updating.monitoring import Monitoring
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.pace import Pace
from headwater.spec.updating.triggers.drift import Drift
from headwater.spec.updating.update import Stateful


def model():
    from river import linear_model, preprocessing

    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


watched = Pipeline(
    name="watched",
    task="binary",
    features=(Feature("x", float), Feature("y", float)),
    label=LabelRule(wait="99d"),
    model=model,
    update=Stateful(),
    triggers=(Drift(),),
    pace=Pace(cool_down="1s"),
    monitoring=Monitoring(rows=200, least=100, reference_rows=400),
    metrics=("log_loss",),
    gate=None,
)
"""
ROWS = 400
LATER = timedelta(minutes=15)  # the pipeline is monitored again then


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("decisions") / "home")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pipelines") / "headwater_watched_on_stack.py"
    path.write_text(WATCHED)
    return f"{path}:watched"


@pytest.fixture(scope="module")
def up(settings: Settings) -> Iterator[list[Up]]:
    """Give the stacks that were started, the one that runs last."""
    started = [Up(settings)]
    try:
        yield started
    finally:
        for one in started:
            if one.process.poll() is None:
                one.end(signal.SIGTERM)


@pytest.fixture
def channel() -> Iterator["Channel"]:
    found = Channel()
    yield found
    found.end()


@pytest.fixture(scope="module")
def bound(up: list[Up], watched: str, settings: Settings) -> Iterator[Bound]:
    """Give the pipeline, deployed and with a first champion."""
    up[-1].addresses()
    with Bound(load_pipeline(watched), settings) as bound:
        serve(bound, "learned")
        collect(bound.log)
        train(bound, by="a test")
        deploy([watched], settings, collect_every=unhurried(), monitor_every=unhurried())
        yield bound


def test_drift_ends_in_a_champion_with_its_parent_decision_and_report(up, bound, watched, settings):
    serve(bound, "moved", at=4.0)
    decision = _decide(watched, settings)
    assert decision.evidence.verdict == "act"
    await_(lambda: bound.decisions.get(decision.id).outcome)
    first, made = bound.registry.store.versions()
    assert (made.parent, made.decision) == (first.number, decision.id)
    assert (made.examples.start, made.examples.stop) == (ROWS, 2 * ROWS)
    assert made.report is not None
    assert made.report.endswith(".html")
    assert [reign.version for reign in bound.registry.championship.history()] == ["1", "2"]
    assert bound.decisions.get(decision.id).attempts == 0  # the event has started it


def test_the_automation_of_the_guide_sends_its_message(up, bound, channel):
    """The event of the first test came before: it is told again, as an event of other decisions.

    Until one is heard: on SQLite, Prefect gives an automation to what watches the events only after it
    has answered that it is made, and an event that comes in between is one that nobody waited for.
    """
    (decision,) = bound.decisions.newest(fired=True)
    told: list[str] = []

    def tells() -> list[str]:
        if len(told) < 1000:  # or a server that answers late would have ever more to do
            told.append(f"another-{len(told)}")
            tell_decided(msgspec.structs.replace(decision, id=told[-1], fired=False))
        return channel.heard

    with up[-1].told():
        made = _of_the_guide("tell_of_drift")("watched", channel.url)
        assert made.trigger.within == timedelta(hours=1)
        (text,) = await_(tells, saw=lambda: f"{len(told)} events told")
    assert text.startswith("drift in watched: x moved")


def test_a_failing_automation_is_shown(up, bound, watched, settings, capsys, monkeypatch):
    with up[-1].prefect() as client:
        _break_automation(client)
    serve(bound, "moved back", at=-4.0)
    decision = _decide(watched, settings)
    await_(lambda: failures_now(settings)["watched"])
    # However long that took: two minutes later the run would be asked for without the automation.
    now = {"HEADWATER_NOW": (decision.at + timedelta(seconds=1)).isoformat()}
    with within(environment(settings, secrets=True) | now):
        shown = _command(capsys, monkeypatch, "monitor", watched)
        assert "still being carried out" in shown.out
        assert "warning: the automation that starts updates failed" in shown.err
        checked = _command(capsys, monkeypatch, "doctor", "--json")
        bad = [found for found in msgspec.json.decode(checked.out) if not found["good"]]
        assert [found["what"] for found in bad] == ["automation of watched"]
        assert "fired, waits" in _command(capsys, monkeypatch, "decisions", "watched").out


def test_a_decision_without_a_run_survives_the_death_of_the_stack(up, bound, watched, settings):
    (decision,) = bound.decisions.unended()
    with up[-1].prefect() as client:
        assert request_again(bound, client, decision.at + timedelta(seconds=100)) == []
        assert request_again(bound, client, decision.at + LATER) == [decision.id]
        lease = await_(lambda: _take_slot(client, "monitor/watched"))
    await_(lambda: bound.decisions.get(decision.id).claimed_by)
    tell_all()
    up[-1].process.kill()  # first, or it would start the worker again
    _kill_worker(settings)
    assert up[-1].process.wait(PATIENCE_S) == -signal.SIGKILL
    up.append(Up(settings))
    with up[-1].prefect() as client:
        again = request_again(bound, client, bound.clock.now() + LATER)
        assert bound.decisions.get(decision.id).outcome is not None or again == [decision.id]
        assert _still_holds(client, lease)
    outcome = await_(lambda: bound.decisions.get(decision.id).outcome)
    assert outcome.version == "3", outcome
    versions = bound.registry.store.versions()
    assert [(v.number, v.parent) for v in versions] == [("1", None), ("2", "1"), ("3", "2")]
    assert versions[-1].decision == decision.id
    assert [reign.version for reign in bound.registry.championship.history()] == ["1", "2", "3"]
    assert bound.decisions.unended() == []


def test_a_run_waits_for_a_taken_slot(up, bound):
    with up[-1].prefect() as client:
        lease = await_(lambda: _take_slot(client, "collect/watched"))
        tries: list[str | None] = []

        def once_more() -> str | None:
            tries.append(_take_slot(client, "collect/watched"))
            client.release_concurrency_slots_with_lease(UUID(lease))
            return tries[-1]

        assert await_(once_more) != lease
        assert tries[0] is None


class Channel:
    """A server on loopback that hears what is posted to it."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        heard = self.heard

        class Hears(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                heard.append(msgspec.json.decode(body)["text"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Hears)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self._thread = Thread(target=self.server.serve_forever)
        self._thread.start()

    def end(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


def _of_the_guide(name: str) -> Any:
    """Give a function of the guide, as a reader would paste it."""
    text = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (block,) = [block for block in blocks if f"def {name}(" in block]
    pasted: dict[str, Any] = {"timedelta": timedelta}
    exec(block, pasted)
    return pasted[name]


def serve(bound: Bound, name: str, at: float | None = None) -> None:
    """Let the champion predict, and the labels come; a feature may be stuck near a value."""
    champion = bound.registry.champion()
    rng, now = random.Random(name), bound.clock.now()
    points = [(rng.gauss(0, 1), rng.gauss(0, 1)) for _ in range(ROWS)]
    seen = [(x if at is None else at + x / 10, y) for x, y in points]
    version = champion.number if champion else ""
    bound.log.record(
        [
            Prediction(
                id=f"{name}-{i}", features={"x": x, "y": y}, output=0.5, served_at=now, version=version
            )
            for i, (x, y) in enumerate(seen)
        ]
    )
    bound.log.label(
        [
            Label(prediction_id=f"{name}-{i}", value=2 * x + y > 0, known_at=now)
            for i, (x, y) in enumerate(points)
        ]
    )


def _decide(reference: str, settings: Settings) -> Decision:
    decision = msgspec.convert(run_flow("monitor", reference, settings), Decision)
    assert decision.fired, decision.reason
    return decision


def _break_automation(client: SyncPrefectClient) -> None:
    """Let it give the flow what that does not take: the server notices when it acts."""
    (there,) = client.read_automations_by_name("headwater: update watched")
    (action,) = there.actions
    assert isinstance(action, RunDeployment)
    broken = action.model_copy(update={"parameters": {"pipeline": ["no", "text"]}})
    changed = AutomationCore(name=there.name, trigger=there.trigger, actions=[broken])
    client.update_automation(there.id, changed)


def _kill_worker(settings: Settings) -> None:
    """Kill it with its processes, as a crash of the machine would."""
    record = msgspec.json.decode((settings.root / "stack.json").read_bytes())
    worker = psutil.Process(record["pids"]["worker"])
    for process in [*worker.children(recursive=True), worker]:
        with suppress(psutil.NoSuchProcess):  # a run that has just ended
            process.kill()


def _take_slot(client: SyncPrefectClient, deployment: str) -> str | None:
    """Take the slot of a deployment as a run does; None where a run has it."""
    limit = client.read_deployment_by_name(deployment).global_concurrency_limit
    assert limit is not None
    try:
        answer = client.increment_concurrency_slots_with_lease([limit.name], 1, "concurrency", 3600)
    except PrefectHTTPStatusError as refused:
        if refused.response.status_code != 423:
            raise
        return None
    return str(answer.json()["lease_id"])


def _still_holds(client: SyncPrefectClient, lease: str) -> bool:
    return bool(client.renew_concurrency_lease(UUID(lease), 3600).is_success)


def _command(capsys: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["headwater", *arguments])
    capsys.readouterr()
    with suppress(SystemExit):
        main()
    return capsys.readouterr()
