"""Models that end, crash or hang their process, on the loop of a real worker and in the real keeper."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from benchmarks.bad_models import HARM
from benchmarks.service.bad_pipelines import publish
from tests.loop.conftest import mlflow_template
from tests.patience import PATIENCE_S, await_
from tests.system import bad

from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.spec.recipe import OffsetRange

__all__ = ["mlflow_template"]

pytestmark = pytest.mark.system

ACTS = {name: float(place) for place, name in enumerate(HARM, 1)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("bad") / "home")
    (settings.root / "mlflow.sqlite").write_bytes(mlflow_template.read_bytes())
    publish(settings, [getattr(bad, name) for name in bad.NAMES])
    return settings


@pytest.fixture(scope="module")
def client(home: Settings) -> Iterator[httpx.Client]:
    """A client of a service with one worker, so that each request meets the harm of the one before."""
    references = [f"tests/system/bad.py:{name}" for name in bad.NAMES]
    process = subprocess.Popen(
        [sys.executable, "-m", "headwater.cli", "serve", *references, "--port", "0", "--workers", "1"],
        env={**os.environ, "HEADWATER_HOME": str(home.root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = re.findall(r"http://\S+?:\d+", process.stdout.readline())[0]
        with httpx.Client(base_url=address, timeout=PATIENCE_S) as client:
            await_(lambda: answers(client))
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


def answers(client: httpx.Client, pipeline: str = "good") -> bool:
    try:
        return ask(client, pipeline, 0.0).status_code == 200
    except httpx.TransportError:
        return False


def ask(client: httpx.Client, pipeline: str, act: float, **more: str) -> httpx.Response:
    body = {"pipeline": pipeline, "features": {"act": act, "a": 1.0}, **more}
    return client.post("/predict", json=body)


def status(client: httpx.Client, pipeline: str) -> dict[str, Any]:
    found: dict[str, Any] = {one["pipeline"]: one for one in client.get("/pipelines").json()}
    of_pipeline: dict[str, Any] = found[pipeline]
    return of_pipeline


@pytest.mark.parametrize("name", [one.name for one in bad.ON_LOOP])
def test_a_version_that_a_worker_dies_of_leaves_the_loop(client: httpx.Client, name: str) -> None:
    assert status(client, name)["isolated"] == {}
    with pytest.raises(httpx.TransportError):
        ask(client, name, ACTS[name])
    await_(lambda: answers(client) and status(client, name)["isolated"])
    assert "a worker" in status(client, name)["isolated"]["1"]
    answer = ask(client, name, ACTS[name])  # the second time costs this request alone
    assert (answer.status_code, answer.json()["code"]) == (503, "ModelError")
    assert answers(client)
    assert await_(lambda: answers(client, name))
    assert status(client, "good")["isolated"] == {}


@pytest.mark.parametrize("name", [one.name for one in bad.LEARNING])
def test_learning_that_ends_the_keeper_or_hangs_stops_its_own_pipeline_alone(
    client: httpx.Client, home: Settings, name: str
) -> None:
    begun = status(client, "learns-good")["learning"]["learned_to"]
    harm = 100 + ACTS[name.removeprefix("learns-")]
    ask(client, name, harm, id=f"{name}-1")
    client.post("/labels", json={"pipeline": name, "prediction_id": f"{name}-1", "value": True})
    (alarm,) = await_(lambda: [a for a in status(client, name)["alarms"] if a["kind"] == "learning"])
    assert "while its model learned from offset 200 on" in alarm["what"]
    assert answers(client, name)  # the version that serves stays
    ask(client, "learns-good", 0.0, id=f"good-{name}")
    label = {"pipeline": "learns-good", "prediction_id": f"good-{name}", "value": True}
    client.post("/labels", json=label)
    await_(lambda: status(client, "learns-good")["learning"]["learned_to"] == begun + 1)
    assert status(client, "learns-good")["alarms"] == []
    with Bound(getattr(bad, name.replace("-", "_")), home) as bound:
        bound.registry.quarantine.add([OffsetRange(200, 201)], by="test", reason="it harms")
    ask(client, name, 0.0, id=f"{name}-2")
    client.post("/labels", json={"pipeline": name, "prediction_id": f"{name}-2", "value": True})
    await_(lambda: status(client, name)["learning"]["learned_to"] == 202)
    await_(lambda: status(client, name)["alarms"] == [])
