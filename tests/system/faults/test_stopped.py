"""Who is stopped by a signal, or killed: the others go on, and nothing is written by two."""

import signal
from pathlib import Path

import psutil
import pytest
from tests.cli import toys
from tests.loop.conftest import mlflow_template
from tests.patience import PATIENCE_S, await_
from tests.system.faults.running import first_version, running

from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect

__all__ = ["mlflow_template"]

pytestmark = pytest.mark.system


def test_a_keeper_that_is_stopped_and_a_forking_parent_that_is_killed_are_replaced(
    mlflow_template: Path, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path / "home")
    first_version(settings, mlflow_template, toys.each)
    with running(settings, "tests/cli/toys.py:each") as service:
        assert service.record("before") == 200
        (keeper,) = service.below("serving.keeper")
        keeper.send_signal(signal.SIGSTOP)
        assert service.record("without") == 200  # answers need no keeper
        psutil.wait_procs([keeper], timeout=PATIENCE_S)
        assert not keeper.is_running()
        await_(lambda: service.status()["learning"]["sequenced_to"] >= 102, service.status)
        (forking,) = [one for one in service.below("forkserver") if one.children()]
        workers = forking.children()
        forking.kill()
        _, left = psutil.wait_procs(workers, timeout=PATIENCE_S)  # others take their places
        assert left == []
        await_(service.is_ready)
        assert service.record("after") == 200
    with Bound(toys.each, settings) as bound:
        collect(bound.log)
        assert bound.log.examples(100)["prediction_id"].to_list() == ["before", "without", "after"]
