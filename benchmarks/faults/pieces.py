"""The pieces of the stack, each of which can be killed and started again, and what they update."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil

from benchmarks.models import scaled_sgd
from headwater.flows.stack.commands import server_command, stack_variables, worker_command
from headwater.infra.processes import Child, Mark, end_marked, fetch, free_port
from headwater.infra.settings import Settings
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.pace import Pace
from headwater.spec.updating.triggers.volume import Volume
from headwater.spec.updating.update import Stateful

__all__ = ["PIPELINE", "REFERENCE", "RESULT", "Ended", "Flows", "Pieces", "await_"]

PIPELINE = Pipeline(
    name="once",
    task="binary",
    features=(Feature("x", float), Feature("y", float)),
    label=LabelRule(wait="9999d"),
    model=scaled_sgd,
    update=Stateful(),
    triggers=(Volume(1),),
    pace=Pace(cool_down="5s"),
    gate=None,
)
"""Every new example asks for an update, but for five seconds after the last one was asked for."""

REFERENCE = f"{Path(__file__).resolve()}:PIPELINE"

RESULT = "result: "
"""Begins the line in which a forked process says what it has found."""

_START_S = 600.0
_POLL_S = 0.05

T = TypeVar("T")


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a forked process ended: its status, below 0 where it was killed, and what it wrote."""

    status: int
    said: str
    took_s: float

    @property
    def result(self) -> Any:
        """What it says that it has found; None where it did not come so far."""
        lines = [line for line in self.said.splitlines() if line.startswith(RESULT)]
        return json.loads(lines[-1].removeprefix(RESULT)) if lines else None


class Pieces:
    """Prefect's server and the worker of one home, as ``headwater up`` starts them.

    Parameters
    ----------
    settings
        Where everything is kept.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.port = free_port(0, "")
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.variables = stack_variables(settings, self.port)
        self._children: dict[str, Child] = {}

    def start_server(self) -> None:
        """Start Prefect's server, at the address and on the database that it had before."""
        server = self._start("prefect", server_command(self.port))
        server.await_answer(lambda: fetch(self.port, "/api/health") is not None, _START_S)

    def start_worker(self) -> None:
        """Start the worker, unless it lives."""
        worker = self._children.get("worker")
        if worker is None or not Mark.of(worker.pid).lives():
            self._start("worker", worker_command())

    def pid(self, name: str) -> int:
        """Give the process of a piece."""
        return self._children[name].pid

    def kill(self, name: str) -> None:
        """Kill a piece and all below it at once, as a crash of the machine would."""
        child = self._children.pop(name)
        with suppress(psutil.NoSuchProcess):
            for process in [*psutil.Process(child.pid).children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.end()

    def end(self) -> None:
        """End whatever lives."""
        for child in reversed(self._children.values()):
            child.end()
        end_marked(Mark.of(os.getpid()))

    def _start(self, name: str, command: list[str]) -> Child:
        log = self.settings.root / "logs" / f"{name}-{time.monotonic_ns()}.log"
        self._children[name] = Child(name, command, self.variables, log)
        return self._children[name]


class Flows:
    """Forks processes that run flows, from one that has imported all: see ``benchmarks.faults.flowing``.

    Parameters
    ----------
    pieces
        Whose server records the runs.
    """

    def __init__(self, pieces: Pieces) -> None:
        self._zygote = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.faults.flowing"],
            cwd=Path(__file__).parents[2],
            env=pieces.variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, what: str, *arguments: object, kill_after_s: float | None = None) -> Ended:
        """Let a process do something, and kill it after a while, if it still lives then."""
        zygote = self._zygote
        assert zygote.stdin is not None
        zygote.stdin.write(json.dumps([what, *arguments]) + "\n")
        zygote.stdin.flush()
        pid = int(self._line())
        started_s = time.monotonic()
        killer = threading.Timer(kill_after_s or 0, _kill, [pid])
        if kill_after_s is not None:
            killer.start()
        answer = json.loads(self._line())
        killer.cancel()
        return Ended(took_s=time.monotonic() - started_s, **answer)

    def end(self) -> None:
        """End the process that forks."""
        self._zygote.communicate()

    def _line(self) -> str:
        assert self._zygote.stdout is not None
        return self._zygote.stdout.readline()


def await_(ask: Callable[[], T | None], limit_s: float, every_s: float = _POLL_S) -> T | None:
    """Ask until there is an answer; None after so long, but for what the process is stopped."""
    for _ in range(round(limit_s / every_s)):
        if (answer := ask()) is not None:
            return answer
        time.sleep(every_s)
    return ask()


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        os.kill(pid, signal.SIGKILL)
