"""The local stack behind ``headwater up``: Prefect, MLflow and a worker, on loopback.

This module imports Prefect only when it is needed, so that :func:`find_stack` costs nothing, and
:func:`run_flow` can set the address of Prefect's API before Prefect reads it.
"""

import fcntl
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from headwater.flows.stack.prefect_environment import environment, within
from headwater.flows.stack.supervision import Supervision
from headwater.infra.offline import quiet
from headwater.infra.processes import Child, Mark, end_marked, fetch, free_port
from headwater.infra.settings import Settings
from headwater.infra.store.published_file import replacing
from headwater.spec.errors import NotFoundError, ServerError, few

__all__ = [
    "FLOWS",
    "POOL",
    "Addresses",
    "Stack",
    "find_stack",
    "run_flow",
    "running_stack",
    "server_command",
    "stack_variables",
    "worker_command",
]

POOL = "headwater"
"""Name of the work pool, and of its worker."""

_NAMES = ("collect", "retrain", "fine-tune", "monitor", "update", "materialise", "batch-predict")
FLOWS = {name: "headwater.flows.{0}:{0}".format(name.replace("-", "_")) for name in _NAMES}
"""The entrypoints of the flows, by name; deployments and running stacks have stored them."""

_LEASES = "prefect.server.concurrency.lease_storage.filesystem"
"""By default leases are in memory: they die with the server, and their slots stay taken."""

_START_LIMIT_S = 600.0  # a machine that is busy takes minutes to import Prefect and MLflow
_POLL_S = 0.5
_RUNS_AT_ONCE = 2
_INHERITED = ("PREFECT_SERVER_", "PREFECT_LOGGING_")
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses of a stack.

    Parameters
    ----------
    prefect_api, prefect_ui, mlflow_ui
        Of Prefect and MLflow; if ``HEADWATER_MLFLOW_URI`` names a tracking server, that server's.
    service
        Of the inference service; None if the stack serves no pipelines.
    """

    prefect_api: str
    prefect_ui: str
    mlflow_ui: str
    service: str | None = None


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """The record in ``stack.json``: the starting process, and the addresses once the stack answers."""

    owner: Mark
    addresses: Addresses | None
    pids: dict[str, int]


class Stack:
    """A running stack.

    Parameters
    ----------
    root
        The home folder whose stack it is.
    addresses
        Its addresses.
    children
        Its processes, in the order in which they were started.
    """

    def __init__(self, root: Path, addresses: Addresses, children: list[Child]) -> None:
        self.addresses = addresses
        self.children = children
        self._root = root

    @property
    def prefect_api(self) -> str:
        """Address of Prefect's API."""
        return self.addresses.prefect_api

    @property
    def prefect_ui(self) -> str:
        """Address of Prefect's pages."""
        return self.addresses.prefect_ui

    @property
    def mlflow_ui(self) -> str:
        """Address of MLflow's pages."""
        return self.addresses.mlflow_ui

    def wait(self) -> None:
        """Show the addresses, start ended processes again, and wait for Ctrl-C or SIGTERM.

        Raises
        ------
        ServerError
            If a process ends again and again; the error has its name and the end of its log.
        """
        console = Console(soft_wrap=True)
        console.print(self._table())
        supervisions = [Supervision(child) for child in self.children]
        try:
            while True:
                for supervision in supervisions:
                    message = supervision.check(time.monotonic())
                    if message is not None:
                        _write(self._root, self.addresses, self.children)
                        console.print(f"{datetime.now(UTC):%H:%M:%S} UTC: {message}")
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            return

    def _table(self) -> Table:
        table = Table("what", "where", box=None, title="headwater is up; Ctrl-C ends it")
        table.add_row("Prefect: runs, schedules, artifacts", self.prefect_ui)
        table.add_row("MLflow: models, versions, runs", self.mlflow_ui)
        if self.addresses.service is not None:
            table.add_row("service: predict, label", f"{self.addresses.service}/docs")
        for child in self.children:
            table.add_row(f"log of {child.name}, process {child.pid}", str(child.log))
        return table


@contextmanager
def running_stack(
    settings: Settings,
    prefect_port: int = 0,
    mlflow_port: int = 0,
    serves: Sequence[str] = (),
    service_port: int = 0,
) -> Iterator[Stack]:
    """Start Prefect, MLflow, a worker and the service; end them all when the block ends.

    SIGTERM and a closed terminal end the block as Ctrl-C does. Processes that a killed stack left
    running are ended first.

    Parameters
    ----------
    settings
        Where the stores are.
    prefect_port, mlflow_port, service_port
        Ports on loopback; 0 takes a free one.
    serves
        Where the served pipelines are declared; if it is empty, no service starts.

    Raises
    ------
    ServerError
        If a stack runs already, a port is taken, or a server does not come up.
    """
    root = settings.root
    with _alone(root), _ended_by_signals():
        _end_leftovers(root)
        prefect = free_port(prefect_port, "--prefect-port")
        mlflow = None if _is_remote(settings) else free_port(mlflow_port, "--mlflow-port")
        service = free_port(service_port, "--service-port") if serves else None
        addresses = Addresses(
            prefect_api=f"http://127.0.0.1:{prefect}/api",
            prefect_ui=f"http://127.0.0.1:{prefect}",
            mlflow_ui=f"http://127.0.0.1:{mlflow}" if mlflow else settings.tracking_uri,
            service=f"http://127.0.0.1:{service}" if service else None,
        )
        children: list[Child] = []
        try:
            _start(settings, prefect, mlflow, children)
            if service is not None:
                _start_service(settings, prefect, service, serves, children)
            _write(root, addresses, children)
            yield Stack(root, addresses, children)
        finally:
            _ignore_signals()
            for child in reversed(children):
                child.end()
            end_marked(Mark.of(os.getpid()))
            (root / "stack.json").unlink(missing_ok=True)


def find_stack(settings: Settings) -> Addresses | None:
    """Return the addresses of the stack that runs on these settings; None if none runs."""
    record = _read(settings.root)
    return record.addresses if record is not None and record.owner.lives() else None


def run_flow(name: str, reference: str, settings: Settings) -> dict[str, Any]:
    """Run a flow in this process, as a run that the stack's Prefect records and shows.

    Without a stack, call the functions of ``headwater.loop``, which need no Prefect.

    Parameters
    ----------
    name
        One of :data:`FLOWS`.
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.
    settings
        Where its stores are, and the stack.

    Returns
    -------
    dict
        The result of the flow.

    Raises
    ------
    NotFoundError
        If there is no such flow.
    ServerError
        If no stack runs.
    HeadwaterError
        As the flow's tasks do.
    """
    if name not in FLOWS:
        raise NotFoundError(f"no flow {name!r}", hint=f"write one of {few(FLOWS)}")
    stack = find_stack(settings)
    if stack is None:
        raise ServerError(
            f"no stack runs below {settings.root}", hint="start it in another terminal: headwater up"
        )
    quiet()
    variables = environment(settings, secrets=True) | {
        "PREFECT_HOME": str(settings.root / "prefect"),
        "PREFECT_API_URL": stack.prefect_api,
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the caller shows errors itself
    }
    with within(variables):
        from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415 - not before

        module, _, function = FLOWS[name].partition(":")
        with temporary_settings({PREFECT_API_URL: stack.prefect_api}):
            flow = getattr(importlib.import_module(module), function)
            result: dict[str, Any] = flow(reference)
    return result


def _start(settings: Settings, prefect: int, mlflow: int | None, children: list[Child]) -> None:
    """Start the servers side by side, then the worker; wait until each answers."""
    logs, shared = settings.root / "logs", stack_variables(settings, prefect)
    console = Console(stderr=True)
    waiting: list[tuple[Child, Callable[[], bool]]] = []

    def start(name: str, command: list[str], extra: dict[str, str], answers: Callable[[], bool]) -> None:
        child = Child(name, command, shared | extra, logs / f"{name}.log")
        children.append(child)
        waiting.append((child, answers))
        _write(settings.root, None, children)

    def await_answers() -> None:
        for child, answers in waiting:
            with console.status(f"starting {child.name} ..."):
                child.await_answer(answers, _START_LIMIT_S)
        waiting.clear()

    start("prefect", server_command(prefect), {}, lambda: fetch(prefect, "/api/health") is not None)
    if mlflow is not None:
        command, variables = _mlflow_command(mlflow), _mlflow_variables(settings)
        start("mlflow", command, variables, lambda: fetch(mlflow, "/health") is not None)
    await_answers()
    began = datetime.now(UTC)  # of this machine, as Prefect's heartbeats are
    start("worker", worker_command(), {}, lambda: _works(prefect, began))
    await_answers()


def _start_service(
    settings: Settings, prefect: int, port: int, serves: Sequence[str], children: list[Child]
) -> None:
    """Start the service after the stores; wait until it answers, if only that nothing serves yet."""
    command = [sys.executable, "-m", "headwater.cli", "serve", *serves, "--port", str(port)]
    variables = stack_variables(settings, prefect)
    child = Child("service", command, variables, settings.root / "logs" / "service.log")
    children.append(child)
    _write(settings.root, None, children)
    with Console(stderr=True).status("starting service ..."):
        child.await_answer(lambda: fetch(port, "/v2/health/live") is not None, _START_LIMIT_S)


def server_command(port: int) -> list[str]:
    """Return the command that starts Prefect's server."""
    return [sys.executable, "-m", "headwater.flows.stack.prefect_server", str(port)]


def _mlflow_command(port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--no-serve-artifacts"]
    return [*command, "--uvicorn-opts", "--http headwater.flows.stack.doors:MlflowHttp --ws none"]


def worker_command() -> list[str]:
    """Return the command that starts the worker."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", POOL]
    return [*command, "--type", "process", "--limit", str(_RUNS_AT_ONCE), "--install-policy", "never"]


def stack_variables(settings: Settings, prefect: int) -> dict[str, str]:
    """Return the environment of every process of the stack, without the caller's own Prefect.

    Parameters
    ----------
    settings
        Where the stores are.
    prefect
        Port of Prefect's server.
    """
    quiet()
    home = settings.root / "prefect"
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT_") or name.startswith(_INHERITED)
    }
    return {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(_pages(prefect)),
        **inherited,
        **environment(settings, secrets=True),
        **Mark.of(os.getpid()).variables(),
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.sqlite'}",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PYTHONUNBUFFERED": "1",
    }


def _pages(port: int) -> list[str]:
    """List the addresses of a server's pages, which may read its answers."""
    return [f"http://{name}:{port}" for name in ("127.0.0.1", "localhost")]


def _mlflow_variables(settings: Settings) -> dict[str, str]:
    """Return MLflow's settings as environment variables, since addresses may hold a password."""
    variables = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(_hosts_of_mlflow(settings)),
        "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": settings.artifact_uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    if settings.s3_endpoint:
        variables["MLFLOW_S3_ENDPOINT_URL"] = settings.s3_endpoint
    return variables


def _hosts_of_mlflow(settings: Settings) -> Iterator[str]:
    """Yield patterns of the hosts that MLflow answers to; its own patterns admit 10.evil.example."""
    for name, port in [(name, "") for name in ("localhost", "127.0.0.1", "[::1]")] + sorted(
        settings.served_hosts
    ):
        yield f"{name}:{port}" if port else name
        if not port:
            yield f"{name.replace('[', '[[]')}:*"


def _works(prefect: int, began: datetime) -> bool:
    """Tell whether the worker has polled for work since it was started."""
    answer = fetch(prefect, f"/api/work_pools/{POOL}/workers/filter", b"{}")
    beats = [worker.get("last_heartbeat_time") for worker in msgspec.json.decode(answer or b"[]")]
    return any(datetime.fromisoformat(beat) > began for beat in beats if beat)


def _is_remote(settings: Settings) -> bool:
    return settings.tracking_uri.startswith(("http://", "https://"))


def _write(root: Path, addresses: Addresses | None, children: list[Child]) -> None:
    record = _Record(
        owner=Mark.of(os.getpid()),
        addresses=addresses,
        pids={child.name: child.pid for child in children},
    )
    with replacing(root / "stack.json") as draft:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(record)))


def _read(root: Path) -> _Record | None:
    try:
        return msgspec.json.decode((root / "stack.json").read_bytes(), type=_Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the lock of the one stack below a home folder; the kernel frees a dead stack's."""
    with (root / "stack.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            record = _read(root)
            where = record.addresses.prefect_ui if record and record.addresses else "starting"
            pid = f", process {record.owner.pid}" if record else ""
            raise ServerError(
                f"a stack runs already below {root}: {where}{pid}",
                hint="use that stack, or end it with Ctrl-C first",
            ) from error
        yield


def _end_leftovers(root: Path) -> None:
    """End the processes that a killed stack left running."""
    record = _read(root)
    if record is not None:
        end_marked(record.owner)
        (root / "stack.json").unlink(missing_ok=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_sign: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    handlers = {sign: signal.signal(sign, interrupt) for sign in _ENDING}
    try:
        yield
    finally:
        for sign, handler in handlers.items():
            signal.signal(sign, handler)


def _ignore_signals() -> None:
    """Ignore signals while the stack ends, which takes a bounded time."""
    if threading.current_thread() is threading.main_thread():
        for sign in _ENDING:
            signal.signal(sign, signal.SIG_IGN)
