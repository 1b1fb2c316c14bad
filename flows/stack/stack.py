"""The local stack behind ``headwater up``: Prefect, MLflow, a worker and the service, on loopback."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType

import msgspec
from rich.console import Console
from rich.table import Table

from headwater.flows.stack.commands import (
    POOL,
    key_variables,
    mlflow_command,
    mlflow_variables,
    server_command,
    service_command,
    stack_variables,
    worker_command,
)
from headwater.flows.stack.record import (
    Addresses,
    end_leftovers,
    only_stack,
    remove_record,
    write_record,
)
from headwater.flows.stack.supervision import Supervision
from headwater.infra.clock import SystemClock
from headwater.infra.operator_key import operator_key_file
from headwater.infra.processes import Child, Mark, end_marked, fetch, free_port
from headwater.infra.settings import Settings
from headwater.serving.access.local_operator import keep_operator_key

__all__ = ["Stack", "running_stack"]

_START_LIMIT_S = 600.0  # a machine that is busy takes minutes to import Prefect and MLflow
_POLL_S = 0.5
_WIDEST = 500
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stack:
    """A running stack.

    Parameters
    ----------
    settings
        Of the home whose stack it is.
    addresses
        Its addresses.
    children
        Its processes, in the order in which they were started.
    """

    def __init__(self, settings: Settings, addresses: Addresses, children: list[Child]) -> None:
        self.addresses = addresses
        self.children = children
        self._root = settings.root
        self._key_file = operator_key_file(settings)

    def wait(self) -> None:
        """Show the addresses, start ended processes again, and wait for Ctrl-C or SIGTERM.

        Raises
        ------
        ServerError
            If a process ends again and again; the error has its name and the end of its log.
        """
        console = Console(soft_wrap=True, width=_WIDEST)  # a path that is cut leads nowhere
        console.print(self._table())
        supervisions = [Supervision(child) for child in self.children]
        try:
            while True:
                for supervision in supervisions:
                    message = supervision.check(time.monotonic())
                    if message is not None:
                        write_record(self._root, self.addresses, self.children)
                        console.print(f"{datetime.now(UTC):%H:%M:%S} UTC: {message}")
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            return

    def _table(self) -> Table:
        table = Table("what", "where", box=None, title="headwater is up; Ctrl-C ends it")
        table.add_row("Prefect: runs, schedules, artifacts", self.addresses.prefect_ui)
        table.add_row("MLflow: models, versions, runs", self.addresses.mlflow_ui)
        if self.addresses.service is not None:
            table.add_row("service: predict, label", f"{self.addresses.service}/docs")
        table.add_row("key: for Prefect's pages, and to operate", str(self._key_file))
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
    running are ended first. The operator's key is made if there is none.

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
    with only_stack(root), _ended_by_signals():
        end_leftovers(root)
        key = keep_operator_key(settings, SystemClock(), by="headwater up")
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
            shared = stack_variables(settings, prefect) | key_variables(key)
            _start(settings, prefect, mlflow, shared, children)
            if service is not None:
                _start_service(settings, service, serves, shared, children)
            write_record(root, addresses, children)
            yield Stack(settings, addresses, children)
        finally:
            _ignore_signals()
            for child in reversed(children):
                child.end()
            end_marked(Mark.of(os.getpid()))
            remove_record(root)


def _start(
    settings: Settings,
    prefect: int,
    mlflow: int | None,
    shared: Mapping[str, str],
    children: list[Child],
) -> None:
    """Start the servers side by side, then the worker; wait until each answers."""
    logs = settings.root / "logs"
    console = Console(stderr=True)
    waiting: list[tuple[Child, Callable[[], bool]]] = []

    def start(name: str, command: list[str], extra: dict[str, str], answers: Callable[[], bool]) -> None:
        child = Child(name, command, {**shared, **extra}, logs / f"{name}.log")
        children.append(child)
        waiting.append((child, answers))
        write_record(settings.root, None, children)

    def await_answers() -> None:
        for child, answers in waiting:
            with console.status(f"starting {child.name} ..."):
                child.await_answer(answers, _START_LIMIT_S)
        waiting.clear()

    start("prefect", server_command(prefect), {}, lambda: fetch(prefect, "/api/health") is not None)
    if mlflow is not None:
        command, variables = mlflow_command(mlflow), mlflow_variables(settings)
        start("mlflow", command, variables, lambda: fetch(mlflow, "/health") is not None)
    await_answers()
    began = datetime.now(UTC)  # of this machine, as Prefect's heartbeats are
    key = shared["PREFECT_API_AUTH_STRING"]
    start("worker", worker_command(), {}, lambda: _works(prefect, key, began))
    await_answers()


def _start_service(
    settings: Settings,
    port: int,
    serves: Sequence[str],
    shared: Mapping[str, str],
    children: list[Child],
) -> None:
    """Start the service after the stores; wait until it answers, if only that nothing serves yet."""
    command = service_command(serves, port)
    child = Child("service", command, shared, settings.root / "logs" / "service.log")
    children.append(child)
    write_record(settings.root, None, children)
    with Console(stderr=True).status("starting service ..."):
        child.await_answer(lambda: fetch(port, "/v2/health/live") is not None, _START_LIMIT_S)


def _works(prefect: int, key: str, began: datetime) -> bool:
    """Tell whether the worker has polled for work since it was started."""
    answer = fetch(prefect, f"/api/work_pools/{POOL}/workers/filter", b"{}", basic=key)
    beats = [worker.get("last_heartbeat_time") for worker in msgspec.json.decode(answer or b"[]")]
    return any(datetime.fromisoformat(beat) > began for beat in beats if beat)


def _is_remote(settings: Settings) -> bool:
    return settings.tracking_uri.startswith(("http://", "https://"))


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
