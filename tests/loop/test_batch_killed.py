"""A batch prediction killed anywhere, and run again: one set of predictions, each logged once."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from tests.conftest import START
from tests.homes import copy_home
from tests.loop.batch_killed import ROWS, bind
from tests.loop.conftest import PIPELINE, day

from headwater.features.record.entries import PREDICTION
from headwater.infra.clock import SimulatedClock
from headwater.infra.commit_points import BATCH_POINTS
from headwater.infra.settings import Settings
from headwater.infra.store.open_storage import open_storage
from headwater.loop.batch.batch_predict import batch_predict, batch_runs
from headwater.loop.binding import Bound
from headwater.loop.training.update import train

BEFORE = ("batch.after_begin", "batch.after_part:1", "batch.after_part:2", "batch.before_stage")
AFTER = (
    "batch.after_stage",
    "record.before_sync:1",
    "batch.between_records:1",
    "record.after_sync:2",
    "batch.between_records:3",
    "batch.before_publish",
)
PUBLISHED = "batch.after_publish"


class Workers:
    """Real processes, forked from one that has imported everything."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.loop.batch_killed"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def work(self, home: Path, kill_at: str = "") -> str:
        """Let one work until it ends or is killed, as it should; give what it said."""
        stdin, stdout = self._parent.stdin, self._parent.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"home": str(home), "kill_at": kill_at}) + "\n")
        stdin.flush()
        answer = json.loads(stdout.readline())
        assert answer["status"] == (-signal.SIGKILL if kill_at else 0), answer["said"]
        return str(answer["said"]).strip()

    def end(self) -> None:
        self._parent.communicate()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    started = Workers()
    yield started
    started.end()


@pytest.fixture(scope="module")
def with_version(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Path:
    settings = Settings(home=tmp_path_factory.mktemp("trained") / "home")
    shutil.copy(mlflow_template, settings.root / "mlflow.sqlite")
    with Bound(PIPELINE, settings, SimulatedClock(START)) as bound:
        day(bound)
        train(bound)
    return settings.root


@pytest.fixture
def folder(with_version: Path, tmp_path: Path) -> Path:
    return copy_home(with_version, tmp_path / "home")


def in_inbox(bound: Bound) -> list[str]:
    rows = bound.log.inbox.read(0, 100_000)
    return [id_ for _, kind, id_, _, _ in rows if kind == PREDICTION and id_.startswith("batch-")]


def folders(bound: Bound) -> list[str]:
    where = Path(open_storage(bound.settings).root) / "batch" / "line"
    return [path.name for path in where.iterdir()] if where.exists() else []


def check_one_set(bound: Bound) -> None:
    """One run, published, with one file and one record for each row; and nothing else is left."""
    (run,) = batch_runs(bound).newest(9)
    assert (run.state, run.rows, run.parts) == ("published", ROWS, 2)
    assert folders(bound) == [run.id]
    written = pl.read_parquet(f"{open_storage(bound.settings).root}/batch/line/{run.id}/*.parquet")
    ids = [f"batch-{run.id}-c-{n}" for n in range(ROWS)]
    assert written["prediction_id"].to_list() == ids
    assert in_inbox(bound) == ids
    assert list(bound.settings.root.glob("batch/*")) == []
    first = bound.log.recorder.find(ids[7])
    assert first is not None
    assert first.prediction is not None
    assert first.prediction.output == written["output"][7]


@pytest.mark.parametrize("point", [*BEFORE, *AFTER])
def test_a_batch_killed_anywhere_is_the_same_after_another_run(
    point: str, workers: Workers, folder: Path
) -> None:
    workers.work(folder, point)
    with bind(folder) as bound:
        staged = batch_runs(bound).in_state("staged")
        assert bool(staged) is (point in AFTER)
        assert bool(in_inbox(bound)) is (point in AFTER[2:])
        assert batch_runs(bound).serving() is None
    said = workers.work(folder)
    assert [run.id for run in staged] in ([], [said])  # what was staged is finished, under its name
    with bind(folder) as bound:
        check_one_set(bound)


def test_a_batch_killed_at_every_point_is_the_same_in_the_end(workers: Workers, folder: Path) -> None:
    for point in (*BEFORE, *AFTER):
        workers.work(folder, point)
    workers.work(folder)
    with bind(folder) as bound:
        check_one_set(bound)


def test_a_published_table_is_whole(workers: Workers, folder: Path) -> None:
    workers.work(folder, PUBLISHED)
    with bind(folder) as bound:
        check_one_set(bound)


def test_a_staged_run_is_finished_and_a_run_that_was_due_since_is_made(
    workers: Workers, folder: Path
) -> None:
    workers.work(folder, "batch.between_records:2")
    with bind(folder) as bound:
        clock = bound.clock
        assert isinstance(clock, SimulatedClock)
        clock.advance_to(START + timedelta(days=2))
        made = batch_predict(bound)
        runs = batch_runs(bound).newest(9)
        assert [run.state for run in runs] == ["published", "published"]
        assert runs[1].id == made.id
        assert runs[1].at - runs[0].at == clock.now() - runs[0].at
        assert len(in_inbox(bound)) == len(set(in_inbox(bound))) == 2 * ROWS


def test_every_commit_point_is_tried() -> None:
    tried = {point.partition(":")[0] for point in (*BEFORE, *AFTER, PUBLISHED)}
    assert tried >= set(BATCH_POINTS)
