"""The inbox's memory does not grow with the records that pass through it."""

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys
from pathlib import Path

import psutil

from headwater.features.record.entries import PREDICTION, Entry
from headwater.features.record.inbox import Inbox

inbox, stored = Inbox(Path(sys.argv[1])), 0


def store(sizes):
    global stored
    for size in sizes:
        entries = [
            Entry(PREDICTION, f"p{stored + n}", "", 0, b"%1000d" % n) for n in range(size)
        ]
        stored += size
        assert inbox.append_each([entries[:1], entries[1:]]) == [1, size - 1]


store([2_000] * 30)  # SQLite's cache is full, and the longest batch was there
before = psutil.Process().memory_info().rss
store(range(1_900, 2_000))
print((psutil.Process().memory_info().rss - before) / 1e6)
"""


def test_batches_of_many_lengths_take_no_more_memory_than_those_of_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path / "toy.sqlite")]
    grown_mb = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown_mb < 50  # a statement kept for each length, with its values, took 310
