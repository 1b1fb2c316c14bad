"""The processes of the service: workers that share one socket, and the keeper beside them."""

import logging
import os
import socket
import time
from collections.abc import Sequence
from multiprocessing import forkserver, get_context

import msgspec
from starlette.types import ASGIApp
from uvicorn import Config, _subprocess
from uvicorn.supervisors import Multiprocess, multiprocess

from headwater.infra.logs import log_as
from headwater.infra.processes import allow_files, end_with_parent
from headwater.infra.settings import Settings, settings
from headwater.serving.access.authentication import Access
from headwater.serving.http.fast_protocol import http_protocol
from headwater.serving.isolation.at_work import ModelWork
from headwater.serving.isolation.isolated_versions import IsolatedVersions, forget_isolated
from headwater.serving.metrics.counters import forget_counters
from headwater.serving.process.app import create_app
from headwater.serving.process.graceful_shutdown import GracefulShutdown
from headwater.serving.process.keepers import NOT_OF_A_MODEL, Keepers
from headwater.serving.process.worker_process import Beating, WorkerProcess
from headwater.spec.errors import ServerError
from headwater.spec.loading import load_pipeline

__all__ = ["Workers", "bind", "serve", "worker_app"]

_PIPELINES = "HEADWATER_SERVED_PIPELINES"
_ACCESS = "HEADWATER_SERVED_ACCESS"
_DRAIN_S = 1.0
_GRACE_S = 20
_START_S = 60
_BACKLOG = 2_048
_FILES = 4_096  # what a worker's connections and stores take; many machines allow 1,024
_logger = logging.getLogger("headwater.serving")


def bind(host: str, port: int) -> socket.socket:
    """Make the socket of the service.

    Parameters
    ----------
    host, port
        The address; port 0 takes a free port.

    Raises
    ------
    ServerError
        If the address is taken or not valid.
    """
    try:
        listening = socket.create_server((host, port), backlog=_BACKLOG, reuse_port=False)
    except OSError as error:
        raise ServerError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="end what listens there, or take another: --port 0",
        ) from error
    listening.set_inheritable(True)
    return listening


def serve(
    references: Sequence[str],
    listening: socket.socket,
    workers: int,
    where: Settings,
    access: Access,
) -> None:
    """Serve pipelines until SIGTERM or SIGINT.

    A worker that dies is replaced. SIGHUP replaces all workers, one after the other, without losing a
    request.

    Parameters
    ----------
    references
        References to the pipelines' declarations.
    listening
        The socket that :func:`bind` returns.
    workers
        The number of worker processes.
    where
        The settings.
    access
        Whether requests need a key, and their rate.

    Raises
    ------
    ChangedError
        If a declaration differs from what is recorded, or from what the champion learned.
    ServerError
        If no worker can start.
    """
    log_as(where, logging.WARNING)
    os.environ[_PIPELINES] = "\n".join(references)
    forget_counters(where)
    os.environ[_ACCESS] = msgspec.json.encode(access).decode()
    config = Config(
        "headwater.serving.process.server:worker_app",
        factory=True,
        workers=workers,
        loop="uvloop",
        http=http_protocol(),
        ws="none",
        proxy_headers=False,
        access_log=False,
        log_config=None,  # the processes' own
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_worker_healthcheck=_START_S,
    )
    processes = _Processes(config, [listening], references, where)
    try:
        processes.run()
    finally:
        processes.keepers.end()
    if processes.failed:
        raise ServerError("the workers do not start", hint="the lines above say why")


def worker_app() -> ASGIApp:
    """Make the application of one worker, from the environment that :func:`serve` has set."""
    end_with_parent()
    allow_files(_FILES)
    log_as(settings(), logging.WARNING)
    pipelines = [load_pipeline(reference) for reference in os.environ[_PIPELINES].splitlines()]
    access = msgspec.json.decode(os.environ[_ACCESS], type=Access)
    app = create_app(pipelines, settings(), access=access)
    return Beating(GracefulShutdown(app, _DRAIN_S))


class Workers(Multiprocess):
    """uvicorn's workers, forked from a process that has imported their libraries.

    A worker that replaces another serves within a second. A fresh process would import for several, and
    on a busy machine for more, while its requests wait.

    Parameters
    ----------
    config, sockets
        As uvicorn takes them.

    Attributes
    ----------
    failed
        Whether no worker could start, so that the service ends.
    longest_stall_s
        How many seconds a worker's loop may stand still before another worker takes its place; a
        prediction may take as long as its pipeline declares.
    """

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        forked = get_context("forkserver")
        forked.set_forkserver_preload(["headwater.serving.process.preload"])
        forkserver.ensure_running()  # it imports while the keeper does
        _subprocess.spawn = forked  # type: ignore[assignment] # uvicorn has no other way to say so
        multiprocess.Process = WorkerProcess  # type: ignore[misc] # however uvicorn begins a worker
        super().__init__(config, sockets)
        self.processes: list[WorkerProcess] = []  # type: ignore[assignment] # as they are made now
        self.failed = False
        self.longest_stall_s = 30.0
        self._has_served = False

    def keep_subprocess_alive(self) -> None:
        """Replace the workers that ended, whatever their status, and those whose loop stands still.

        uvicorn ends the service when a worker ends with status 3, which a model may do, too. Here a
        status above 0 ends it, and only until a worker has served: the next one would fail, too.
        """
        for place, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            work = process.work
            longest_s = self.longest_stall_s if work is None else work.limit_s
            stands = process.stands_still(longest_s, time.monotonic())
            if process.process.is_alive() and not stands:
                continue
            process.kill()
            process.join()
            self._has_served |= any(one.has_served for one in self.processes)
            if not self._has_served and (process.exitcode or 0) > 0:
                self.failed = True
                self.should_exit.set()
                return
            what = "stood still" if stands else f"ended with status {process.exitcode}"
            _logger.warning("a worker %s: another takes its place", what)
            if stands or process.exitcode not in NOT_OF_A_MODEL:
                self.found_at_fault(process, work, what)
            self.processes[place] = WorkerProcess(self.config, self.sockets)
            self.processes[place].start()

    def found_at_fault(self, process: WorkerProcess, work: ModelWork | None, what: str) -> None:
        """Note at or after which version a worker was lost: it predicts in a process of its own now."""
        last = work or process.last_work
        if last is not None:
            when = "while it predicted" if work is not None else "after it predicted"
            IsolatedVersions(last.pipeline, settings()).add(last.at, f"a worker {what} {when}")


class _Processes(Workers):
    """The workers, and the keepers beside them."""

    def __init__(
        self,
        config: Config,
        sockets: list[socket.socket],
        references: Sequence[str],
        where: Settings,
    ) -> None:
        super().__init__(config, sockets)
        forget_isolated(where)
        self.keepers = Keepers(references, where)

    def keep_subprocess_alive(self) -> None:
        """Replace the processes that died."""
        super().keep_subprocess_alive()
        self.keepers.check(time.monotonic())
