"""A real service, and a small disk of its own for a home."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.cli import toys
from tests.patience import PATIENCE_S, await_
from tests.serving.flow import history_of

from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.spec.pipeline import Pipeline

__all__ = ["ROOT", "Running", "command", "environment", "first_version", "running"]

ROOT = Path(__file__).parents[3]


class Running:
    """A running ``headwater serve``."""

    def __init__(self, process: "subprocess.Popen[str]", address: str) -> None:
        self.process = psutil.Process(process.pid)
        self.address = address
        self.client = httpx.Client(base_url=address, timeout=PATIENCE_S)
        self.acknowledged: list[str] = []

    def is_ready(self) -> bool:
        try:
            return self.client.get("/v2/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def record(self, name: str) -> int:
        """Predict and label once; return the status of the answer that was not good, or 200."""
        x = hash(name) % 7 / 7
        body = {"id": name, "features": {"x": x, "y": 0.5}}
        predicted = self.client.post("/predict", json=body)
        if predicted.status_code != 200:
            return predicted.status_code
        self.acknowledged.append(name)
        label = {"prediction_id": name, "value": x > 0.5}
        return self.client.post("/labels", json=label).status_code

    def status(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.client.get("/pipelines").json()
        return found[0]

    def alarms(self) -> set[str]:
        return {alarm["kind"] for alarm in self.status()["alarms"]}

    def below(self, what: str) -> list[psutil.Process]:
        """Give its processes of a kind, by their command lines."""
        found = []
        for child in self.process.children(recursive=True):
            with suppress(psutil.Error):
                if what in " ".join(child.cmdline()):
                    found.append(child)
        return found


def environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, "HEADWATER_HOME": str(settings.home)}


def command(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run ``headwater`` on a home."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "headwater.cli", *arguments],
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def first_version(settings: Settings, template: Path, pipeline: Pipeline = toys.toy) -> None:
    """Train a first version, whose MLflow is a copy."""
    (settings.root / "mlflow.sqlite").write_bytes(template.read_bytes())
    with Bound(pipeline, settings) as bound:
        bound.log.import_history(history_of(("x", "y"), 0, 100))
        collect(bound.log)
        train(bound)


@contextmanager
def running(settings: Settings, *references: str) -> Iterator[Running]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "headwater.cli", "serve", *references, "--port", "0"],
        cwd=ROOT,
        env=environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = re.findall(r"http://\S+?:\d+", process.stdout.readline())[0]
        service = Running(process, address)
        await_(service.is_ready)
        yield service
        service.client.close()
    finally:
        with suppress(psutil.Error):
            for stopped in psutil.Process(process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    stopped.resume()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
