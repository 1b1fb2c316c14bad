"""Processes that the stack starts, watches and ends."""

import atexit
import base64
import http.client
import logging
import os
import random
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path

import msgspec
import psutil

from headwater.spec.errors import ServerError

__all__ = [
    "PARENT",
    "Child",
    "Mark",
    "allow_files",
    "end_marked",
    "end_with_parent",
    "exit_despite_threads",
    "fetch",
    "free_port",
]

_HOST = "127.0.0.1"
_logger = logging.getLogger("headwater.processes")
_MARK = "_HEADWATER_STACK"
_END_S = 15.0
_POLL_S = 0.2
_WATCH_S = 1.0
_LAST_S = 120.0
_THREADS_S = 3.0
PARENT = "_HEADWATER_PARENT"
"""The environment variable that tells a process the id of the one that started it."""

_TAIL_LINES = 15
_PORTS = range(20_000, 32_768)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A process, told from a later one with the same pid.

    Parameters
    ----------
    pid
        Its number.
    started_at_s
        When it started, in seconds since 1970.
    """

    pid: int
    started_at_s: float

    @classmethod
    def of(cls, pid: int) -> "Mark":
        """Mark a living process."""
        return cls(pid=pid, started_at_s=psutil.Process(pid).create_time())

    def lives(self) -> bool:
        """Return whether that very process still runs."""
        try:
            process = psutil.Process(self.pid)
            same: bool = abs(process.create_time() - self.started_at_s) < 1
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def variables(self) -> dict[str, str]:
        """Return the variables that mark every process of the stack, whatever its later parent."""
        return {_MARK: f"{self.pid}/{self.started_at_s:.2f}"}


class Child:
    """A server in its own process group, with its log in a file.

    Parameters
    ----------
    name
        What to call it.
    command, variables
        What to run, and its environment.
    log
        Where its output goes.
    """

    def __init__(
        self, name: str, command: Sequence[str], variables: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._variables = variables
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        self._process = self._start()

    @property
    def pid(self) -> int:
        """The process id, a new one at each start."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, below 0 if a signal ended the process; None while it runs."""
        return self._process.poll()

    @property
    def is_stopped(self) -> bool:
        """Whether a signal has stopped it, such as SIGSTOP: it runs no further, and has not ended."""
        with suppress(psutil.Error):
            return bool(psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)
        return False

    def start_again(self) -> None:
        """End what is left of the process group, and start the process again.

        Its log goes on below what it wrote before.
        """
        self._end_group()
        self._process = self._start()

    def await_answer(self, answers: Callable[[], bool], limit_s: float) -> None:
        """Wait until the server answers.

        Raises
        ------
        ServerError
            If it ends before, or does not answer in time; with the end of its log.
        """
        deadline = time.monotonic() + limit_s
        while not answers():
            self.check()
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name} does not answer after {limit_s:.0f} s; {self.tail()}",
                    hint=f"look into {self.log}, then start again",
                )
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raise if the process has ended.

        Raises
        ------
        ServerError
            With the end of its log.
        """
        if self.status is not None:
            raise ServerError(
                f"{self.name} ended with status {self.status}; {self.tail()}",
                hint=f"look into {self.log}, then start again: headwater up",
            )

    def tail(self) -> str:
        """Return the end of the log."""
        lines = self.log.read_bytes()[-10_000:].decode(errors="replace").splitlines()
        shown = [line for line in lines if line.strip()][-_TAIL_LINES:]
        return "the end of its log:\n" + "\n".join(f"  {line}" for line in shown)

    def end(self, within_s: float = _END_S) -> None:
        """End the process and its group by SIGTERM, then by SIGKILL, which the log says.

        Parameters
        ----------
        within_s
            Seconds that it has to store what is unfinished.
        """
        for sign, limit_s in ((signal.SIGTERM, within_s), (signal.SIGKILL, _END_S)):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, sign)
            try:
                self._process.wait(limit_s)
            except subprocess.TimeoutExpired:
                _logger.warning("%s did not end within %g s: it is killed", self.name, limit_s)

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as file:
            return subprocess.Popen(  # noqa: S603 - our own commands
                self._command,
                env={**self._variables, PARENT: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _end_group(self) -> None:
        """End the rest of the process group, which may hold the port."""
        _end([process for process in psutil.process_iter() if _in_group(process, self.pid)])


def end_marked(mark: Mark) -> list[int]:
    """End the processes left of a stack, such as the flow runs of a worker that was killed.

    Parameters
    ----------
    mark
        The process that started the stack.

    Returns
    -------
    list of int
        The pids that were ended.
    """
    marked = mark.variables()[_MARK]
    left = [process for process in psutil.process_iter() if _marked_with(process) == marked]
    _end(left)
    return [process.pid for process in left]


def allow_files(count: int) -> None:
    """Let this process open so many files and connections, if the machine lets it; never fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def end_with_parent() -> None:
    """Send this process SIGTERM once the process that started it is gone, and SIGKILL two minutes later.

    Where multiprocessing started it, that is not the process that it was forked from. It ends with
    either, since without the one that forked it nobody can wait for it or replace it.
    """
    started_by = parent_process()
    parent = os.getppid()
    if started_by is None:
        parent = int(os.environ.get(PARENT, parent))  # it may be gone before this process looks

    def watch() -> None:
        while os.getppid() == parent and (started_by is None or started_by.is_alive()):
            time.sleep(_WATCH_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LAST_S)
        os.kill(os.getpid(), signal.SIGKILL)  # what a model holds, or lets ignore signals

    threading.Thread(target=watch, name="parent", daemon=True).start()


def exit_despite_threads(status: int, within_s: float = _THREADS_S) -> None:
    """Let this process end with a status soon, although threads of a user's module may run on.

    Python waits without end for threads that are no daemons. Called last: what ends by itself before is
    not cut off, nor what was registered to be done at the exit.
    """
    over = threading.Event()
    atexit.register(over.set)  # the last one registered is called first

    def end() -> None:
        if not over.wait(within_s):
            _logger.warning("threads that a module started do not end: the process ends without them")
            os._exit(status)

    threading.Thread(target=end, name="exit", daemon=True).start()


def free_port(wanted: int, option: str) -> int:
    """Return a free port on loopback.

    A server takes seconds to bind its port. So a free one lies below those that Linux gives to programs
    that connect, or ask for any: none of them gets it meanwhile.

    Parameters
    ----------
    wanted
        Which one; 0 takes any.
    option
        How the user asked for it, to name in the error.

    Raises
    ------
    ServerError
        If the wanted one is taken.
    """
    tried = [wanted] if wanted else random.SystemRandom().sample(_PORTS, len(_PORTS))
    for port in tried:
        if _is_free(port):
            return port
    raise ServerError(
        f"port {wanted} is taken",
        hint=f"end the process that listens there, or take a free one: {option} 0",
    )


def fetch(port: int, path: str, body: bytes | None = None, basic: str | None = None) -> bytes | None:
    """Send a request to a local server; None if it does not answer with status 200.

    Parameters
    ----------
    port, path
        Where it goes.
    body
        JSON, for a POST.
    basic
        What the server asks for by HTTP's basic authentication.
    """
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    try:
        headers = {} if body is None else {"Content-Type": "application/json"}
        if basic is not None:
            headers["Authorization"] = f"Basic {base64.b64encode(basic.encode()).decode()}"
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return content if answer.status == 200 else None


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((_HOST, port))
        except OSError:
            return False
    return True


def _end(processes: list[psutil.Process]) -> None:
    """End processes by SIGTERM, then by SIGKILL."""
    for process in processes:
        _quietly(process.terminate)
    _, stubborn = psutil.wait_procs(processes, timeout=_END_S / 3)
    for process in stubborn:
        _quietly(process.kill)
    psutil.wait_procs(stubborn, timeout=_END_S)


def _in_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def _marked_with(process: psutil.Process) -> str | None:
    try:
        variable = process.environ().get(_MARK)
    except psutil.Error:
        return None
    return None if variable is None else str(variable)


def _quietly(end: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        end()
