"""Imports what the worker needs once, then forks a worker for each line it reads.

Importing MLflow and its stores takes seconds, and a fault test needs two processes a point. Nothing is
opened, and no thread is started, before the fork. A line is JSON: home, day and commit point; the answer
is JSON too: the worker's exit status and what it wrote.
"""

import importlib
import json
import os
import sys
import tempfile
import traceback

import git
import lightgbm
import mlflow.pyfunc
import mlflow.store.model_registry.sqlalchemy_workspace_store
import mlflow.store.tracking.sqlalchemy_workspace_store
import mlflow.tracing.processor.otel
import narwhals
import pyarrow.fs
import river
import sklearn.linear_model
import sklearn.metrics
import sklearn.pipeline
from mlflow.utils.requirements_utils import _init_packages_to_modules_map
from tests.system import worker

from headwater.infra import commit_points
from headwater.learners import sklearn_learner as batch

IMPORTED = (batch, git, lightgbm, mlflow, narwhals, pyarrow, river, sklearn)


def child(home: str, day: int, kill_at: str, said: int) -> None:
    """Work as a process of its own would."""
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ["HEADWATER_KILL_AT"] = kill_at
    importlib.reload(commit_points)
    try:
        worker.main(home, day)
    except BaseException:  # noqa: BLE001 - whatever ends a child, it must not go on as the zygote
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Serve until the input ends."""
    _init_packages_to_modules_map()  # MLflow reads all that is installed where a process logs a model
    for line in sys.stdin:
        order = json.loads(line)
        with tempfile.TemporaryFile("w+") as said:
            pid = os.fork()
            if pid == 0:
                child(order["home"], order["day"], order["kill_at"], said.fileno())
            _, status = os.waitpid(pid, 0)
            said.seek(0)
            answer = {"status": os.waitstatus_to_exitcode(status), "said": said.read()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
