import os
import signal
import subprocess
import sys

import pytest

from headwater.infra.commit_points import COMMIT_POINTS, DELETE_POINTS

_PASS = """
from headwater.infra.commit_points import reached
for turn in range(3):
    for point in ("record.before_sync", "record.after_sync"):
        print(point, turn, flush=True)
        reached(point)
"""


@pytest.mark.parametrize(
    ("kill_at", "status", "last"),
    [
        ("", 0, "record.after_sync 2"),
        ("record.after_sync", -signal.SIGKILL, "record.after_sync 0"),
        ("record.before_sync:1", -signal.SIGKILL, "record.before_sync 0"),
        ("record.before_sync:3", -signal.SIGKILL, "record.before_sync 2"),
        ("record.before_sync:4", 0, "record.after_sync 2"),
        ("label.before_sync", 0, "record.after_sync 2"),
    ],
)
def test_a_process_dies_at_its_commit_point(kill_at: str, status: int, last: str) -> None:
    environment = {**os.environ, "HEADWATER_KILL_AT": kill_at}
    completed = subprocess.run(
        [sys.executable, "-c", _PASS], env=environment, capture_output=True, text=True, check=False
    )
    assert completed.returncode == status
    assert completed.stdout.splitlines()[-1] == last


def test_no_point_is_named_twice() -> None:
    points = COMMIT_POINTS + DELETE_POINTS
    assert len(set(points)) == len(points)
