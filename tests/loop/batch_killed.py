"""A process that scores one table, and is killed where it is told.

Imports take longer than the work, so one process forks a worker for each line of JSON that it reads:
home, commit point. Nothing is opened before the fork.
"""

import importlib
import json
import os
import sys
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

import mlflow.pyfunc
import mlflow.store.model_registry.sqlalchemy_workspace_store
import mlflow.store.tracking.sqlalchemy_workspace_store
import narwhals
import polars as pl
import pyarrow.fs
import sklearn.linear_model
import sklearn.pipeline
import sklearn.preprocessing
from msgspec.structs import replace
from tests.conftest import START
from tests.loop.conftest import PIPELINE

from headwater.infra import commit_points
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.batch.batch_predict import batch_predict
from headwater.loop.binding import Bound
from headwater.registry import registry
from headwater.spec.data.source import QuerySource
from headwater.spec.serving.batch import BatchPrediction

ROWS = 2_500
IMPORTED = (mlflow, narwhals, pyarrow, registry, sklearn)  # before the fork, once for all


def customers() -> pl.DataFrame:
    """More than two syncs' worth of a part."""
    numbers = range(ROWS)
    return pl.DataFrame(
        {"customer": [f"c-{n}" for n in numbers], "a": [n / ROWS for n in numbers], "b": 1.0}
    )


SCORED = replace(
    PIPELINE,
    batch=BatchPrediction(source=QuerySource(customers), key="customer", every="1d", rows=2_000),
)


def bind(home: Path) -> Bound:
    """Bind the pipeline, always at the same moment."""
    return Bound(SCORED, Settings(home=home), SimulatedClock(START + timedelta(days=1)))


def child(home: str, kill_at: str, said: int) -> None:
    """Work as a process of its own would."""
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ["HEADWATER_KILL_AT"] = kill_at
    importlib.reload(commit_points)
    for name, module in list(sys.modules.items()):
        if name.startswith("headwater.") and hasattr(module, "reached"):
            vars(module)["reached"] = commit_points.reached
    try:
        with bind(Path(home)) as bound:
            print(batch_predict(bound).id, flush=True)
    except BaseException:  # noqa: BLE001 - whatever ends a child, it must not go on as its parent
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        with tempfile.TemporaryFile("w+") as said:
            pid = os.fork()
            if pid == 0:
                child(order["home"], order["kill_at"], said.fileno())
            _, status = os.waitpid(pid, 0)
            said.seek(0)
            answer = {"status": os.waitstatus_to_exitcode(status), "said": said.read()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
