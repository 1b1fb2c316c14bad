"""Imports what flows need once, then forks a process for each order that it reads.

An order is a line of JSON: what to do, and with what. The answers are two lines: the pid, at once, and
how the process ended and what it wrote. Nothing is opened, and no thread is started, before the fork.
"""

import json
import os
import runpy
import sys
import tempfile
import traceback
from datetime import datetime

import mlflow.pyfunc
import mlflow.store.model_registry.sqlalchemy_workspace_store
import mlflow.store.tracking.sqlalchemy_workspace_store
import mlflow.tracing.processor.otel
import sklearn.linear_model
import sklearn.metrics
import sklearn.pipeline
import sklearn.preprocessing
from prefect.client.orchestration import get_client

from benchmarks.faults.pieces import PIPELINE, REFERENCE, RESULT
from headwater.flows.deployments import deploy
from headwater.flows.dispatch import request_again
from headwater.flows.monitor import monitor
from headwater.infra.settings import settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.spec.data.records import Label, Prediction

__all__ = ["feed", "main"]

IMPORTED = (mlflow, sklearn)
_ROWS = 50


def feed(bound: Bound, batch: int) -> None:
    """Record and label a batch; the same one again changes nothing."""
    ids = [f"{batch:06}-{i}" for i in range(_ROWS)]
    now = bound.clock.now()
    there = bound.log.counts().predictions
    if there > batch * _ROWS:
        return
    bound.log.record(
        [
            Prediction(id=id_, features={"x": i % 7.0, "y": i % 3.0}, output=0.5, served_at=now)
            for i, id_ in enumerate(ids)
        ]
    )
    bound.log.label(
        [Label(prediction_id=id_, value=i % 7 > 3, known_at=now) for i, id_ in enumerate(ids)]
    )


def _settle(api: str) -> None:
    """Make the first champion, and deploy."""
    with Bound(PIPELINE) as bound:
        feed(bound, 0)
        collect(bound.log)
        train(bound, by="benchmark")
    deploy([REFERENCE], settings(), prefect_api=api)


def _decide(batch: int) -> None:
    """Feed, and let the monitor flow decide on it."""
    with Bound(PIPELINE) as bound:
        feed(bound, batch)
    _say(monitor(REFERENCE)["id"])


def _run(flow_run_id: str) -> None:
    """Execute a run that is scheduled, as the worker's process would."""
    os.environ["PREFECT__FLOW_RUN_ID"] = flow_run_id
    sys.argv = ["prefect.engine"]
    runpy.run_module("prefect.engine", run_name="__main__")


def _ask_again(now: str) -> None:
    with Bound(PIPELINE) as bound, get_client(sync_client=True) as client:
        _say(request_again(bound, client, datetime.fromisoformat(now)))


def _say(result: object) -> None:
    print(f"{RESULT}{json.dumps(result)}", flush=True)


_DOES = {"settle": _settle, "decide": _decide, "run": _run, "ask again": _ask_again}


def main() -> None:
    """Serve until the input ends."""
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        with tempfile.TemporaryFile("w+") as said:
            pid = os.fork()
            if pid == 0:
                _work(what, arguments, said.fileno())
            _answer(str(pid))
            _, status = os.waitpid(pid, 0)
            said.seek(0)
            answer = {"status": os.waitstatus_to_exitcode(status), "said": said.read()}
        _answer(json.dumps(answer))


def _work(what: str, arguments: list[str], said: int) -> None:
    """Do it as a process of its own would, and never go on as the one that forks."""
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.setsid()
    try:
        _DOES[what](*arguments)
    except SystemExit as error:
        sys.stdout.flush()
        os._exit(int(error.code or 0))
    except BaseException:  # noqa: BLE001 - whatever ends it
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    _drain()
    os._exit(0)


def _drain() -> None:
    """Send the events that wait, as Prefect does when a process ends."""
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 - slow

    EventsWorker.drain_all()


def _answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
