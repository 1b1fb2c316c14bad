"""The service as processes, under load: swaps, restarts and kills lose no request and no record."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from tests.cli import toys
from tests.loop.conftest import mlflow_template
from tests.patience import PATIENCE_S, await_
from tests.serving.conftest import eventually
from tests.serving.flow import history_of

from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.serving.client.client import Client
from headwater.spec.errors import HeadwaterError, SchemaError

__all__ = ["eventually", "mlflow_template"]

pytestmark = pytest.mark.system

Eventually = Callable[[Callable[[], bool]], None]


class Service:
    """A running ``headwater serve``."""

    def __init__(self, address: str, process: psutil.Process) -> None:
        self.address = address
        self.process = process

    def workers(self) -> list[psutil.Process]:
        return [
            worker
            for forking in self._children("multiprocessing.forkserver")
            for worker in forking.children()
        ]

    def keepers(self) -> list[psutil.Process]:
        return self._children("headwater.serving.keeper")

    def _children(self, what: str) -> list[psutil.Process]:
        found = []
        for child in self.process.children():
            with suppress(psutil.Error):  # it may just have ended
                if what in " ".join(child.cmdline()):
                    found.append(child)
        return found


class Load:
    """Threads that predict and label until they are told to stop, and remember what was acknowledged."""

    def __init__(self, address: str, retries: int) -> None:
        self.acknowledged: list[str] = []
        self.labelled: list[str] = []
        self.versions: Counter[str] = Counter()
        self.failures: list[HeadwaterError] = []
        self._address, self._retries = address, retries
        self._ends = threading.Event()

    def _send(self, name: int) -> None:
        with Client(self._address, retries=self._retries, timeout_s=PATIENCE_S) as client:
            n = 0
            while not self._ends.is_set():
                n += 1
                try:
                    answer = client.predict({"x": n / 7 % 1, "y": 0.5}, id=f"{name}-{n}")
                    self.acknowledged.append(answer.id)
                    self.versions[answer.version] += 1
                    client.label(answer.id, n % 2 == 0)
                    self.labelled.append(answer.id)
                except HeadwaterError as error:
                    self.failures.append(error)

    @contextmanager
    def running(self, threads: int = 3) -> Iterator["Load"]:
        started = [threading.Thread(target=self._send, args=(name,)) for name in range(threads)]
        for thread in started:
            thread.start()
        try:
            yield self
        finally:
            self._ends.set()
            for thread in started:
                thread.join()


@pytest.fixture
def home(tmp_path: Path, mlflow_template: Path) -> Settings:
    """A home with two versions, the second of which is champion."""
    settings = Settings(home=tmp_path / "home")
    (settings.root / "mlflow.sqlite").write_bytes(mlflow_template.read_bytes())
    with Bound(toys.toy, settings) as bound:
        for part in (0, 1):
            bound.log.import_history(history_of(("x", "y"), part * 100, part * 100 + 100))
            collect(bound.log)
            train(bound)
    return settings


@pytest.fixture
def service(home: Settings, eventually: Eventually, request: pytest.FixtureRequest) -> Iterator[Service]:
    with serving(home, getattr(request, "param", "toy"), eventually) as found:
        yield found


@contextmanager
def serving(home: Settings, toy: str, eventually: Eventually) -> Iterator[Service]:
    served = f"tests/cli/toys.py:{toy}"
    command = [sys.executable, "-m", "headwater.cli", "serve", served, "--port", "0"]
    variables = {**os.environ, "HEADWATER_HOME": str(home.root)}
    process = subprocess.Popen(
        [*command, "--workers", "2"], env=variables, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = re.findall(r"http://\S+?:\d+", process.stdout.readline())[0]
        found = Service(address, psutil.Process(process.pid))
        with Client(address, timeout_s=PATIENCE_S) as client:
            eventually(client.is_ready)
        eventually(lambda: len(found.workers()) == 2)  # the other may not have begun
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize("service", ["toy", "apart"], indirect=True)
def test_swaps_and_rolling_restarts_fail_no_request(
    service: Service, home: Settings, eventually: Eventually
) -> None:
    with Load(service.address, retries=0).running() as load, Bound(toys.toy, home) as bound:
        for version in ("1", "2", "1", "2"):
            before = load.versions[version]
            bound.registry.promote(version, by="test", reason="a swap")
            eventually(lambda version=version, before=before: load.versions[version] > before + 5)
        old = {worker.pid for worker in service.workers()}
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(service.workers()) == 2 and not old & {w.pid for w in service.workers()})
        sent = len(load.acknowledged)
        eventually(lambda: len(load.acknowledged) > sent + 50)
    assert load.failures == []


def test_a_new_release_answers_beside_the_old_one_and_each_goes_on_by_the_pair_that_fits(
    service: Service, home: Settings, eventually: Eventually
) -> None:
    with (
        Load(service.address, retries=20).running(1) as old,
        serving(home, "slim", eventually) as new,
        Client(new.address, timeout_s=PATIENCE_S) as client,
        Bound(toys.slim, home) as bound,
    ):
        assert client.predict({"x": 0.5, "y": 0.5}).version == "2"
        assert train(bound, from_scratch=True).promoted
        eventually(lambda: answer_of(client, {"x": 0.5}) == "3")
        service.workers()[0].kill()  # the next one goes on with the version that it finds to fit
        eventually(lambda: len(service.workers()) == 2)
        sent = old.versions["2"]
        eventually(lambda: old.versions["2"] > sent + 50)
        bound.registry.promote("2", by="test", reason="back")
        eventually(lambda: answer_of(client, {"x": 0.5, "y": 0.5}) == "2")
        eventually(lambda: old.versions["2"] > sent + 100)
    assert old.versions.keys() == {"2"}
    assert old.failures == []


def answer_of(client: Client, features: dict[str, float]) -> str | None:
    """Return the version that answers; None if the request does not fit."""
    with suppress(SchemaError):
        return client.predict(features).version
    return None


def test_every_acknowledged_record_is_there_once_whatever_is_killed(
    service: Service, home: Settings, eventually: Eventually
) -> None:
    with Load(service.address, retries=20).running() as load:
        for _ in range(3):
            sent = len(load.acknowledged)
            await_(service.workers)[0].kill()
            eventually(lambda sent=sent: len(load.acknowledged) > sent + 30)
        (keeper,) = service.keepers()
        keeper.kill()
        eventually(lambda: any(other.pid != keeper.pid for other in service.keepers()))
        sent = len(load.acknowledged)
        eventually(lambda: len(load.acknowledged) > sent + 30)
    assert load.failures == []
    with Bound(toys.toy, home) as bound:
        collect(bound.log)
        found = bound.log.predictions()["prediction_id"].to_list()
        served = [id_ for id_ in found if not id_.startswith("past-")]
        assert Counter(served).most_common(1)[0][1] == 1
        assert set(load.acknowledged) <= set(served)
        examples = bound.log.examples(200)["prediction_id"].to_list()
        assert set(load.labelled) <= set(examples)
        assert len(examples) == len(set(examples))


def test_no_process_outlives_a_killed_service(service: Service) -> None:
    below = service.process.children(recursive=True)
    assert len(below) > len(service.workers()) + len(service.keepers()) == 3
    service.process.kill()
    _, left = psutil.wait_procs(below, timeout=PATIENCE_S)
    assert left == []


def test_a_damaged_state_leaves_the_old_version_serving(
    service: Service, home: Settings, eventually: Eventually
) -> None:
    with Client(service.address, timeout_s=PATIENCE_S) as client, Bound(toys.toy, home) as bound:
        assert client.predict({"x": 0.5, "y": 0.5}).version == "2"
        first = bound.registry.store.get("1")
        where = bound.registry.mlflow.client.get_logged_model(first.model_id).artifact_location
        state = Path(where.removeprefix("file://")) / "artifacts" / "state.bin"
        good = state.read_bytes()
        state.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        bound.registry.championship.swap(
            "1", expected=bound.registry.championship.reign(), by="test", reason="unchecked"
        )
        log = home.root / "logs" / "keeper.log"
        eventually(lambda: "the serving version stays" in log.read_text())
        assert client.predict({"x": 0.5, "y": 0.5}).version == "2"
        assert client.is_ready()
