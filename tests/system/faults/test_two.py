"""Two of everything: trainers, a trainer beside learning, and threads that a module starts."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.cli import toys
from tests.loop.conftest import mlflow_template
from tests.patience import PATIENCE_S, await_
from tests.serving.flow import history_of
from tests.system.faults.running import ROOT, command, environment, first_version, running

from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect

__all__ = ["mlflow_template"]

pytestmark = pytest.mark.system

_THREADED = """
import threading
import time

from tests.cli.toys import each

threading.Thread(target=time.sleep, args=(10**6,)).start()
"""


def test_a_trainer_beside_learning_and_threads_of_a_module_that_do_not_end(
    mlflow_template: Path, tmp_path: Path
) -> None:
    """A service of a module whose thread never ends learns each label, and ends at SIGTERM."""
    settings = Settings(home=tmp_path / "home")
    first_version(settings, mlflow_template, toys.each)
    module = tmp_path / "threaded_toys.py"
    module.write_text(_THREADED)
    with running(settings, f"{module}:each") as service:
        for number in range(12):
            assert service.record(f"before-{number}") == 200
        await_(lambda: service.status()["learned_to"] >= 110, service.status)
        trained = command(settings, "train", "tests/cli/toys.py:each")
        assert trained.returncode == 0, trained.stderr
        for number in range(12):
            assert service.record(f"after-{number}") == 200
        await_(lambda: service.status()["learned_to"] >= 120, service.status)
        assert service.alarms() == set()
        every = [service.process, *service.process.children(recursive=True)]
        service.process.terminate()
        assert service.process.wait(PATIENCE_S) == 0
        _, left = psutil.wait_procs(every, timeout=PATIENCE_S)
        assert left == []
    with Bound(toys.each, settings) as bound:
        collect(bound.log)
        ids = bound.log.examples(100)["prediction_id"].to_list()
        assert ids == service.acknowledged
        reign = bound.registry.championship.reign()
        assert reign is not None
        line = [bound.registry.store.get(reign.version)]
        while line[-1].parent is not None:
            line.append(bound.registry.store.get(line[-1].parent))
        made_by_hand = {one.number for one in bound.registry.store.versions() if one.number != "1"}
        assert made_by_hand.intersection(one.number for one in line)


def test_of_three_trainers_at_once_one_learns(mlflow_template: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    first_version(settings, mlflow_template)
    with Bound(toys.toy, settings) as bound:
        bound.log.import_history(history_of(("x", "y"), 100, 3_000))
        collect(bound.log)
    train = [sys.executable, "-W", "ignore", "-m", "headwater.cli", "train", "tests/cli/toys.py:toy"]
    trainers = [
        subprocess.Popen(
            train,
            cwd=ROOT,
            env=environment(settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = [one.communicate(timeout=PATIENCE_S)[1] for one in trainers]
    ended = [one.returncode for one in trainers]
    assert 0 in ended
    for status, words in zip(ended, said, strict=True):
        assert status == 0 or "is held by" in words
    with Bound(toys.toy, settings) as bound:
        assert [version.number for version in bound.registry.store.versions()] == ["1", "2"]
        champion = bound.registry.champion()
        assert champion is not None
        assert champion.examples.stop == 3_000
