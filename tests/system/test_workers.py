"""Workers of the service that die are replaced, whatever they were just asked."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.patience import PATIENCE_S
from uvicorn import Config

from headwater.serving.process.server import Workers

pytestmark = pytest.mark.system


class DiesWhenAsked:
    """The parent's end of a worker's pipe; the worker is killed as soon as it was asked something."""

    def __init__(self, worker: psutil.Process, pipe: Any) -> None:
        self._worker, self._pipe = worker, pipe

    def send(self, asked: object) -> None:
        self._pipe.send(asked)
        self._worker.kill()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)


@pytest.fixture
def workers() -> Iterator[Workers]:
    """One worker of an application that does nothing; it has far more time to answer than the test."""
    handlers = {sign: signal.getsignal(sign) for sign in signal.Signals}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        config = Config(
            "starlette.applications:Starlette",
            factory=True,
            timeout_worker_healthcheck=100_000,
            log_level="error",
        )
        found = Workers(config, [listening])
        found.init_processes()
        try:
            yield found
        finally:
            found.terminate_all()
            found.join_all()
            for sign, handler in handlers.items():
                if handler is not None and signal.getsignal(sign) != handler:
                    signal.signal(sign, handler)


def test_a_worker_that_dies_while_it_is_asked_is_replaced_at_once(workers: Workers) -> None:
    workers.keep_subprocess_alive()
    (worker,) = workers.processes
    process = psutil.Process(worker.pid)
    process.suspend()
    while not _hangs(process):  # a thread of it could still answer
        pass
    worker.parent_conn = DiesWhenAsked(process, worker.parent_conn)
    workers.keep_subprocess_alive()
    (now,) = workers.processes
    assert now.pid != process.pid
    assert now.is_alive(timeout=PATIENCE_S)


def _hangs(process: psutil.Process) -> bool:
    """Say whether every thread is stopped; a process counts as stopped when its first one is."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return all((thread / "stat").read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)
