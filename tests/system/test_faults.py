"""A real process is killed at each commit point: the next goes on, nothing is lost or doubled."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.homes import copy_home
from tests.loop.conftest import PIPELINE

from headwater.infra.clock import SystemClock
from headwater.infra.commit_points import COMMIT_POINTS
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.registry.mlflow_store.connection import check_reachable
from headwater.registry.mlflow_store.housekeeping import close_leftovers

pytestmark = pytest.mark.system


class Workers:
    """Real processes, forked from one that has imported everything."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "tests.system.zygote"]
        root = Path(__file__).parents[2]
        self._zygote = subprocess.Popen(
            command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def work(self, home: Path, day: int, kill_at: str = "") -> tuple[int, str]:
        """Let one work, and give its exit status and what it wrote."""
        zygote = self._zygote
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        zygote.stdin.write(json.dumps({"home": str(home), "day": day, "kill_at": kill_at}) + "\n")
        zygote.stdin.flush()
        answer = json.loads(zygote.stdout.readline())
        return answer["status"], answer["said"]

    def end(self) -> None:
        self._zygote.communicate()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    started = Workers()
    yield started
    started.end()


@pytest.fixture(scope="module")
def first_day(workers: Workers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a home with one day's work and one version."""
    home = tmp_path_factory.mktemp("faults") / "home"
    check_reachable(Settings(home=home))
    status, said = workers.work(home, 1)
    assert status == 0, said
    return home


@pytest.mark.parametrize("point", COMMIT_POINTS)
def test_a_kill_at_a_commit_point_loses_and_doubles_nothing(
    point: str, workers: Workers, first_day: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    copy_home(first_day, home)
    status, said = workers.work(home, 2, kill_at=point)
    assert status == -signal.SIGKILL, said
    status, said = workers.work(home, 2)
    assert status == 0, said
    with Bound(PIPELINE, Settings(home=home), SystemClock()) as bound:
        ids = bound.log.examples()["prediction_id"].to_list()
        assert sorted(ids) == sorted(f"{day}-{i}" for day in (1, 2) for i in range(30))
        assert bound.log.archive["examples"].stop() == 60
        store, championship = bound.registry.store, bound.registry.championship
        versions = store.versions()
        assert [(v.number, v.parent) for v in versions] == [("1", None), ("2", "1")]
        reign = championship.reign()
        assert reign is not None
        assert (reign.epoch, reign.version) == (2, "2")
        assert store.aliases() == {"champion": "2", "previous": "1"}
        assert championship.mirrored()
        assert close_leftovers(bound.registry.mlflow) == 0
        (fired,) = bound.decisions.newest(fired=True)
        assert fired.outcome is not None
        assert (fired.outcome.version, fired.outcome.promoted) == ("2", True)
        assert versions[1].decision == fired.id
