"""A process killed at a commit point loses and doubles no acknowledged record."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import polars as pl
import pytest
from deltalake import DeltaTable
from tests.features.killed import BATCHES, open_log, work

from headwater.features.log import FeatureLog
from headwater.features.read.archive import Archived
from headwater.infra.commit_points import COMMIT_POINTS, IDENTITY_POINTS

POINTS = [
    "record.before_sync:2",
    "record.after_sync:2",
    "label.before_sync:2",
    "label.after_sync:2",
    "sequence.before_commit:2",
    "sequence.after_commit:2",
    "collect.between_tables:1",
    "collect.between_tables:2",
    # Three tables a collect: made by its first commits, then appended to.
    *(f"collect.{when}_append:{turn}" for when in ("before", "after") for turn in range(1, 7)),
]
ALL = [id_ for batch in BATCHES for id_ in batch]
KINDS = get_args(Archived)


class Killed:
    """The steps that a worker reported before it ended."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        self.ids: dict[str, list[str]] = {"sequenced": [], "recorded": [], "labelled": []}
        for line in text.splitlines():
            step, *ids = line.split()
            whole = step in ("sequenced", "archived")
            self.ids[step] = ids if whole else self.ids.get(step, []) + ids


class Workers:
    """Real processes, forked from one that has imported everything."""

    def __init__(self) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.features.killed"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, home: Path, *, send: bool, kill_at: str = "") -> Killed:
        """Let one work until it ends or is killed."""
        stdin, stdout = self._parent.stdin, self._parent.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"home": str(home), "send": send, "kill_at": kill_at}) + "\n")
        stdin.flush()
        answer = json.loads(stdout.readline())
        return Killed(answer["status"], answer["said"])

    def end(self) -> None:
        self._parent.communicate()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    started = Workers()
    yield started
    started.end()


def archived_ids(log: FeatureLog, kind: Archived) -> list[str]:
    """Ids in one of the archive's tables, in order, read without the log."""
    key = "offset" if kind == "examples" else "position"
    table = DeltaTable(log.archive[kind].address).to_pyarrow_table(columns=[key, "prediction_id"])
    return list(pl.DataFrame(pl.from_arrow(table)).sort(key)["prediction_id"])


@pytest.mark.parametrize("point", POINTS)
def test_acknowledged_records_are_there_once(point: str, workers: Workers, tmp_path: Path) -> None:
    killed = workers.start(tmp_path, send=True, kill_at=point)
    assert killed.status == -signal.SIGKILL, killed.text
    again = workers.start(tmp_path, send=False)
    assert again.status == 0, again.text
    log = open_log(tmp_path)
    found = {kind: archived_ids(log, kind) for kind in KINDS}
    said = killed.ids
    assert found["predictions"][: len(said["recorded"])] == said["recorded"]
    assert found["labels"][: len(said["labelled"])] == said["labelled"]
    assert found["examples"][: len(said["sequenced"])] == said["sequenced"]
    assert found["examples"] == found["labels"]
    for ids in found.values():  # what was not said is absent or whole
        assert ids == ALL[: len(ids)]
        assert len(ids) % len(BATCHES[0]) == 0
    work(log, send=True)  # whoever got no answer sends again
    assert [archived_ids(log, kind) for kind in KINDS] == [ALL] * len(KINDS)
    assert log.examples()["prediction_id"].to_list() == ALL
    assert log.counts().unsequenced == 0
    log.close()
    log.database.close()


@pytest.mark.parametrize("point", IDENTITY_POINTS)
def test_a_log_whose_beginning_was_cut_short_goes_on(
    point: str, workers: Workers, tmp_path: Path
) -> None:
    killed = workers.start(tmp_path, send=True, kill_at=point)
    assert killed.status == -signal.SIGKILL, killed.text
    again = workers.start(tmp_path, send=True)
    assert again.status == 0, again.text
    assert again.ids["archived"] == ALL


@pytest.mark.parametrize(
    ("point", "waiting", "examples"),
    [
        ("record.before_sync:2", 0, 10),
        ("record.after_sync:2", 10, 10),
        ("label.before_sync:2", 10, 10),
        ("label.after_sync:2", 20, 10),
        ("sequence.before_commit:2", 20, 10),
        ("sequence.after_commit:2", 0, 20),
    ],
)
def test_a_batch_is_there_from_its_sync_or_commit_on(
    point: str, waiting: int, examples: int, workers: Workers, tmp_path: Path
) -> None:
    workers.start(tmp_path, send=True, kill_at=point)
    log = open_log(tmp_path)
    assert (log.counts().unsequenced, log.stop()) == (waiting, examples)
    log.close()
    log.database.close()


def test_every_point_of_the_log_is_tried() -> None:
    ours = ("record.", "label.", "sequence.", "collect.")
    tried = {point.partition(":")[0] for point in POINTS}
    assert tried == {name for name in COMMIT_POINTS if name.startswith(ours)}
