"""A stranger sees the whole loop within three minutes of installing it."""

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.claim import Outcome, at_least

__all__ = ["measure"]

_SECONDS = 180.0
_CORES = 2
_SHORT = ("--start", "2013-01-03", "--days", "2")


def measure(*, short: bool) -> Outcome:
    """Time what ``make demo`` does after installation, on two cores; ``ratio`` is 180 s over that."""
    with TemporaryDirectory(prefix="headwater-bench-demo-") as folder:
        command = [sys.executable, "-m", "examples.flights.demo", "--home", f"{folder}/home"]
        started_s = time.monotonic()
        finished = subprocess.run(
            [*_two_cores(), *command, *(_SHORT if short else ())],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        took_s = time.monotonic() - started_s
    if finished.returncode:
        raise RuntimeError(f"the demo ended with {finished.returncode}: {finished.stderr[-2000:]}")
    proven = "NOT EQUAL" not in finished.stdout
    return at_least(_SECONDS / took_s, 1.0, also=proven, seconds=round(took_s, 1), cores=_CORES)


def _two_cores() -> list[str]:
    """Give the command that runs another on the first two cores that this process may use."""
    cores = sorted(os.sched_getaffinity(0))[:_CORES]
    pin = "import os, sys; os.sched_setaffinity(0, {}); os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", pin.format(cores)]
