"""A home on which a service serves under load, while something happens to its stores."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from benchmarks.claim import mlflow_database
from benchmarks.stores.lined_pipeline import pipeline
from headwater.infra.clock import SystemClock
from headwater.infra.settings import Settings
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.storage import Storage
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.spec.data.records import Label, Prediction

__all__ = ["REFERENCE", "Scene", "await_true", "grow", "scene"]

REFERENCE = f"{Path(__file__).parent / 'lined_pipeline.py'}:pipeline"
_HISTORY, _PARTS = 600, 3
_PATIENCE_S, _PAUSE_S, _BETWEEN_S = 120.0, 0.1, 0.03
_T = TypeVar("_T")


class Scene:
    """A home with its service and its load.

    Attributes
    ----------
    settings
        Where the stores are.
    predicted, labelled
        Ids of the predictions and of the labels that were acknowledged.
    answers
        How many requests got which status; 0 counts those that got no answer.
    """

    def __init__(self, settings: Settings, variables: Mapping[str, str]) -> None:
        self.settings = settings
        self.predicted: list[str] = []
        self.labelled: list[str] = []
        self.answers: Counter[int] = Counter()
        self._variables = {**os.environ, **_variables(settings), **variables}
        self._process: subprocess.Popen[str] | None = None
        self._address = ""
        self._ends = threading.Event()
        self._loading: threading.Thread | None = None

    @property
    def storage(self) -> Storage:
        """The storage of the home."""
        return open_storage(self.settings)

    @property
    def service(self) -> psutil.Process:
        """The first process of the service."""
        if self._process is None:
            raise RuntimeError("no service runs")
        return psutil.Process(self._process.pid)

    def bound(self) -> Bound:
        """Bind the pipeline to the stores, as another process would."""
        return Bound(pipeline, self.settings, SystemClock())

    def start(self) -> None:
        """Start the service, wait until it is ready, and put it under load."""
        command = [sys.executable, "-W", "ignore", "-m", "headwater.cli", "serve", REFERENCE]
        log = (self.settings.root.parent / "service.log").open("a")
        with log:
            self._process = subprocess.Popen(
                [*command, "--port", "0"],
                env=self._variables,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self._process.stdout.readline() if self._process.stdout else ""
        found = re.findall(r"http://\S+?:\d+", line)
        if not found:
            raise RuntimeError(f"the service does not start: {line}")
        self._address = found[0]
        await_true(self.is_ready, lambda: "the service is not ready")
        self._ends.clear()
        self._loading = threading.Thread(target=self._load, args=(time.monotonic_ns(),))
        self._loading.start()

    def end(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """End the load, and then the service: with SIGKILL, all of its processes at once."""
        self._ends.set()
        if self._loading is not None:
            self._loading.join()
            self._loading = None
        if self._process is None:
            return
        every = [self.service, *self.service.children(recursive=True)]
        for one in every:
            with suppress(psutil.Error):
                if sign == signal.SIGKILL:
                    one.kill()
                else:
                    one.resume()
        self._process.send_signal(sign)
        self._process.communicate()
        psutil.wait_procs(every, _PATIENCE_S)
        self._process = None

    def is_ready(self) -> bool:
        """Return whether the service says that it is ready."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self._address}/v2/health/ready", timeout=70).is_success
        return False

    def status(self) -> dict[str, Any]:
        """Return what the service says of the pipeline."""
        status: dict[str, Any] = httpx.get(f"{self._address}/pipelines", timeout=70).json()[0]
        return status

    def alarms(self) -> dict[str, str]:
        """Return the alarms that hold, by their kinds."""
        try:
            return {alarm["kind"]: alarm["what"] for alarm in self.status()["alarms"]}
        except (httpx.TransportError, ValueError):
            return {}

    def answers_again(self) -> None:
        """Wait until a prediction and a label that are sent now are acknowledged."""
        before = len(self.labelled)
        await_true(
            lambda: self.is_ready() and len(self.labelled) > before + 10,
            lambda: f"it does not answer again: {self.answers} {self.alarms()}",
        )

    def below(self, what: str) -> list[psutil.Process]:
        """Return the processes of the service of a kind, by their command lines."""
        found = []
        for child in self.service.children(recursive=True):
            with suppress(psutil.Error):
                if what in " ".join(child.cmdline()):
                    found.append(child)
        return found

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run ``headwater`` on the home."""
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "headwater.cli", *words],
            env=self._variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def _load(self, number: int) -> None:
        drawn = random.Random(number)
        with httpx.Client(base_url=self._address, timeout=70) as client:
            for place in range(10**9):
                if self._ends.wait(_BETWEEN_S):
                    return
                id_, x, y = f"{number}-{place}", drawn.gauss(0, 1), drawn.gauss(0, 1)
                body = {"id": id_, "features": {"x": x, "y": y}}
                if self._sent(client, "/predict", body):
                    self.predicted.append(id_)
                    if self._sent(client, "/labels", {"prediction_id": id_, "value": x + y > 0}):
                        self.labelled.append(id_)

    def _sent(self, client: httpx.Client, path: str, body: dict[str, object]) -> bool:
        status = 0
        with suppress(httpx.TransportError):
            status = client.post(path, json=body).status_code
        self.answers[status] += 1
        return status == 200


@contextmanager
def scene(settings: Settings, variables: Mapping[str, str]) -> Iterator[Scene]:
    """Make a home with two versions, serve it under load, and end whatever runs afterwards.

    Parameters
    ----------
    settings, variables
        Where the home is, and more variables for its processes.
    """
    shutil.copy(mlflow_database(), settings.root)
    with Bound(pipeline, settings) as bound:
        for part in range(_PARTS):
            grow(bound, f"past-{part}", _HISTORY // _PARTS)
            collect(bound.log)
            if part:
                train(bound)
    found = Scene(settings, variables)
    found.start()
    try:
        found.answers_again()
        yield found
    finally:
        found.end()


def grow(bound: Bound, name: str, rows: int) -> None:
    """Record predictions, and label them."""
    drawn, now = random.Random(name), datetime.now(UTC)
    points = [(f"{name}-{row}", drawn.gauss(0, 1), drawn.gauss(0, 1)) for row in range(rows)]
    bound.log.record(
        [
            Prediction(id=id_, features={"x": x, "y": y}, output=0.5, served_at=now)
            for id_, x, y in points
        ]
    )
    bound.log.label([Label(prediction_id=id_, value=x + y > 0, known_at=now) for id_, x, y in points])


def await_true(ask: Callable[[], _T], saw: Callable[[], str], patience_s: float = _PATIENCE_S) -> _T:
    """Ask until the answer is true, and return it.

    Raises
    ------
    TimeoutError
        If it is not, for a long time.
    """
    until_s = time.monotonic() + patience_s
    while not (answer := ask()):
        if time.monotonic() > until_s:
            raise TimeoutError(saw())
        time.sleep(_PAUSE_S)
    return answer


def _variables(settings: Settings) -> dict[str, str]:
    names: Sequence[str] = ("database_url", "storage", "s3_endpoint")
    found = {name: getattr(settings, name) for name in names}
    return {
        "HEADWATER_HOME": str(settings.root),
        **{f"HEADWATER_{name.upper()}": str(value) for name, value in found.items() if value},
    }
