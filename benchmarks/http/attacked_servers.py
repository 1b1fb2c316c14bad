"""The servers of ``headwater up`` as a page in a browser meets them, with their door and without."""

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

import httpx
import msgspec
from prefect.client.orchestration import SyncPrefectClient

from benchmarks.claim import fresh_home, mlflow_database
from benchmarks.http.attacks import Attack
from benchmarks.http.fuzz import fuzzed
from benchmarks.service.in_thread import answering
from benchmarks.service.serving_toy import FEATURES, publish
from headwater.features.log import FeatureLog
from headwater.flows.stack.commands import mlflow_variables, stack_variables
from headwater.flows.stack.stack import running_stack
from headwater.infra.operator_key import read_operator_key
from headwater.infra.processes import Child, fetch, free_port
from headwater.infra.same_origin import SameOrigin
from headwater.infra.settings import Settings
from headwater.loop.batch.batch_predict import batch_predict
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.serving.api.operations import (
    BATCH_PREDICT,
    LABEL,
    OPERATIONS,
    PREDICT,
    V2_INFER,
    V2_INFER_VERSION,
)
from headwater.serving.http.fast_protocol import FastProtocol
from headwater.serving.keeper.batch_publisher import BatchPublisher
from headwater.serving.keeper.operator_socket import OperatorSocket
from headwater.serving.process.app import create_app
from headwater.spec.data.records import Prediction

__all__ = ["Target", "service", "stack"]

_ASKED = 50
_START_S = 600.0
_SETTLE_S = 10.0
"""Prefect stores events some seconds after it has taken them."""

_FEATURES = {f"x{n}": 0.5 for n in range(FEATURES)}
_TENSORS = [
    {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
    for name, value in _FEATURES.items()
]
_BODIES: dict[str, dict[str, object]] = {
    PREDICT.name: {"pipeline": "served", "id": "EVIL", "features": _FEATURES},
    LABEL.name: {"pipeline": "served", "prediction_id": "asked-0", "value": True, "key": "EVIL"},
    BATCH_PREDICT.name: {"id": "EVIL", "features": _FEATURES},
    V2_INFER.name: {"id": "EVIL", "inputs": _TENSORS},
    V2_INFER_VERSION.name: {"id": "EVIL", "inputs": _TENSORS},
}
_PLACES = {
    "{pipeline}": "served",
    "{model}": "served",
    "{version}": "2",
    "{key:any}": "customer-17",
    "{prediction_id:any}": "asked-0",
}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A server that is attacked.

    Parameters
    ----------
    name, port
        What it is called, and where it listens.
    page
        A path that shows something, whoever asks.
    attacks
        What it would obey.
    rows
        Returns the rows of its stores as they are now.
    begin
        Prepares for another way: what can change only once may change again.
    settle
        Waits until it has stored what it has taken.
    """

    name: str
    port: int
    page: str
    attacks: tuple[Attack, ...]
    rows: Callable[[], set[str]]
    begin: Callable[[], None] = lambda: None
    settle: Callable[[], None] = lambda: None


@contextmanager
def service(*, door: bool) -> Iterator[list[Target]]:
    """Serve the toy with a queue, a table and operators, and no key; with the door or without."""
    with fresh_home(mlflow_database()) as settings, ExitStack() as stack:
        publish(settings, fuzzed)
        with Bound(fuzzed, settings) as bound:
            _ask_people(bound.log)
            batch_predict(bound)
            BatchPublisher([bound]).step()
        if not door:
            stack.enter_context(patch.object(SameOrigin, "check", lambda *_, **__: None))
        stack.enter_context(OperatorSocket([fuzzed], settings))
        port = stack.enter_context(answering(create_app([fuzzed], settings), FastProtocol))
        yield [
            Target(
                name="service",
                port=port,
                page="/v2/health/live",
                attacks=tuple(_operations()),
                rows=lambda: _rows(settings),
                begin=lambda: _forget_reads(settings),
            )
        ]


def _ask_people(log: FeatureLog) -> None:
    """Fill the queue of questions."""
    now = datetime.now(UTC)
    log.record(
        [
            Prediction(id=f"asked-{n}", features=_FEATURES | {"x0": float(n)}, output=0.5, served_at=now)
            for n in range(_ASKED)
        ]
    )
    collect(log)
    log.queue().fill()


def _operations() -> Iterator[Attack]:
    """Yield each operation of the service, with a body that it obeys."""
    for row in OPERATIONS:
        path = row.path
        for place, value in _PLACES.items():
            path = path.replace(place, value)
        body = _BODIES.get(row.name) or dict(row.example or {})
        if row.method != "GET" and "EVIL" not in msgspec.json.encode(body).decode():
            body["person" if "person" in body else "reason"] = "EVIL"
        if "prediction_id" in body:
            body["prediction_id"] = "asked-1" if "person" in body else "asked-0"
        yield Attack(method=row.method, path=path, body=msgspec.json.encode(body or ["EVIL"]).decode())


def _rows(settings: Settings) -> set[str]:
    """Return every row of the operational database and the inboxes, and which answers were looked up."""
    found: set[str] = set()
    for path in (settings.root / "headwater.sqlite", *(settings.root / "inbox").glob("*.sqlite")):
        found |= _rows_of(path)
    for path in _reads(settings):
        found |= {f"{path.name} {n}" for n, read in enumerate(path.read_bytes()) if read}
    return found


def _forget_reads(settings: Settings) -> None:
    """Take back which answers were looked up: each is counted once."""
    for path in _reads(settings):
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))


def _reads(settings: Settings) -> Iterator[Path]:
    return (settings.root / "live").rglob("*.reads")


def _rows_of(path: Path) -> set[str]:
    found: set[str] = set()
    database = sqlite3.connect(f"file:{os.fspath(path)}?mode=ro", uri=True)
    try:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            rows = database.execute(f'SELECT * FROM "{table}"')
            found |= {f"{path.name} {table} {row!r}" for row in rows}
    finally:
        database.close()
    return found


@contextmanager
def stack(*, door: bool) -> Iterator[list[Target]]:
    """Start Prefect and MLflow as ``headwater up`` does, or as they come, without door and key."""
    with fresh_home(mlflow_database()) as settings, ExitStack() as ends:
        if door:
            addresses = ends.enter_context(running_stack(settings)).addresses
            prefect, mlflow = httpx.URL(addresses.prefect_ui).port, httpx.URL(addresses.mlflow_ui).port
        else:
            prefect, mlflow = ends.enter_context(_as_they_come(settings))
        assert prefect is not None
        assert mlflow is not None
        yield [
            Target(
                name="prefect",
                port=prefect,
                page="/api/health",
                attacks=tuple(_of_prefect(_seeded(prefect, read_operator_key(settings)))),
                rows=lambda: _evil(settings.root / "prefect" / "prefect.sqlite"),
                settle=lambda: time.sleep(_SETTLE_S),
            ),
            Target(
                name="mlflow",
                port=mlflow,
                page="/health",
                attacks=tuple(_of_mlflow()),
                rows=lambda: _evil(settings.root / "mlflow.sqlite"),
            ),
        ]


@contextmanager
def _as_they_come(settings: Settings) -> Iterator[tuple[int, int]]:
    prefect, mlflow = free_port(0, ""), free_port(0, "")
    listens = ["--host", "127.0.0.1", "--port"]
    variables = stack_variables(settings, prefect) | mlflow_variables(settings)
    variables["MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"] = "true"
    run, logs = [sys.executable, "-m"], settings.root / "logs"
    server = [*run, "prefect", "server", "start", *listens, str(prefect)]
    tracking = [*run, "mlflow", "server", *listens, str(mlflow), "--workers", "1"]
    children = [
        Child("prefect", server, variables, logs / "prefect.log"),
        Child("mlflow", tracking, variables, logs / "mlflow.log"),
    ]
    try:
        children[0].await_answer(lambda: fetch(prefect, "/api/health") is not None, _START_S)
        children[1].await_answer(lambda: fetch(mlflow, "/health") is not None, _START_S)
        yield prefect, mlflow
    finally:
        for child in children:
            child.end()


def _seeded(port: int, key: str | None) -> tuple[str, str]:
    """Make a flow and a deployment in Prefect; return their ids."""
    with SyncPrefectClient(f"http://127.0.0.1:{port}/api", auth_string=key) as client:
        flow = client.create_flow_from_name("seed")
        return str(flow), str(client.create_deployment(flow, "seed"))


def _of_prefect(seeded: tuple[str, str]) -> Iterator[Attack]:
    """Yield what makes something in Prefect, or lets it do something."""
    flow, deployment = seeded
    event = {"event": "EVIL", "resource": {"prefect.resource.id": "EVIL"}}
    event |= {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat()}
    bodies: dict[str, object] = {
        "/api/flows/": {"name": "EVIL"},
        "/api/flow_runs/": {"flow_id": flow, "name": "EVIL"},
        "/api/deployments/": {"flow_id": flow, "name": "EVIL"},
        f"/api/deployments/{deployment}/create_flow_run": {"name": "EVIL"},
        "/api/variables/": {"name": "evil_NUMBER", "value": "EVIL"},
        "/api/work_pools/": {"name": "EVIL", "type": "process"},
        "/api/concurrency_limits/": {"tag": "EVIL", "concurrency_limit": 1},
        "/api/artifacts/": {"key": "evil-NUMBER", "type": "markdown", "data": "EVIL"},
        "/api/events": [event],
        "/api/automations/": {
            "name": "EVIL",
            "trigger": {"type": "event", "expect": ["none"], "posture": "Reactive", "threshold": 1},
            "actions": [{"type": "run-deployment", "source": "selected", "deployment_id": deployment}],
        },
    }
    for path, body in bodies.items():
        yield Attack(method="POST", path=path, body=msgspec.json.encode(body).decode())
    messages = (msgspec.json.encode({**event, "id": str(uuid4())}).decode(),)
    yield Attack(method="GET", path="/api/events/in", messages=messages)


def _of_mlflow() -> Iterator[Attack]:
    """Yield what makes something in MLflow, below both of its prefixes."""
    bodies: dict[str, dict[str, object]] = {
        "experiments/create": {"name": "EVIL"},
        "experiments/set-experiment-tag": {"experiment_id": "0", "key": "evil", "value": "EVIL"},
        "experiments/update": {"experiment_id": "0", "new_name": "EVIL"},
        "runs/create": {"experiment_id": "0", "run_name": "EVIL"},
        "registered-models/create": {"name": "EVIL"},
        "logged-models": {"experiment_id": "0", "name": "evil-NUMBER", "model_type": "EVIL"},
    }
    for prefix in ("api", "ajax-api"):
        for path, body in bodies.items():
            text = msgspec.json.encode(body).decode()
            yield Attack(method="POST", path=f"/{prefix}/2.0/mlflow/{path}", body=text)


def _evil(path: Path) -> set[str]:
    """Return the rows that a page has made: those of the server itself come and go."""
    return {row for row in _rows_of(path) if "evil=" in row}
