"""The processes of the service: workers that share one socket, and the keeper beside them."""

import logging
import os
import socket
import sys
from collections.abc import Sequence
from multiprocessing import forkserver, get_context

import msgspec
from starlette.types import ASGIApp
from uvicorn import Config, _subprocess
from uvicorn.supervisors import Multiprocess

from headwater.infra.logs import log_as
from headwater.infra.processes import Child, end_with_parent
from headwater.infra.settings import Settings, settings
from headwater.serving.access.authentication import Access
from headwater.serving.http.fast_protocol import http_protocol
from headwater.serving.metrics.counters import forget_counters
from headwater.serving.process.app import create_app
from headwater.serving.process.graceful_shutdown import GracefulShutdown
from headwater.serving.published.refused import check_not_refused, refused_file
from headwater.spec.errors import ServerError
from headwater.spec.loading import load_pipeline

__all__ = ["Workers", "bind", "serve", "worker_app"]

_PIPELINES = "HEADWATER_SERVED_PIPELINES"
_ACCESS = "HEADWATER_SERVED_ACCESS"
_DRAIN_S = 1.0
_GRACE_S = 20
_START_S = 60
_KEEPER_S = 300  # a machine that is busy takes minutes to import MLflow
_BACKLOG = 2_048


def bind(host: str, port: int) -> socket.socket:
    """Take the service's socket.

    Parameters
    ----------
    host, port
        Where; port 0 takes a free one.

    Raises
    ------
    ServerError
        If the address is taken or is none.
    """
    try:
        found = socket.create_server((host, port), backlog=_BACKLOG, reuse_port=False)
    except OSError as error:
        raise ServerError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="end what listens there, or take another: --port 0",
        ) from error
    found.set_inheritable(True)
    return found


def serve(
    references: Sequence[str],
    listening: socket.socket,
    workers: int,
    where: Settings,
    access: Access,
) -> None:
    """Serve pipelines until SIGTERM or SIGINT.

    A worker that dies is replaced; SIGHUP replaces all, one after the other, without a lost request.

    Parameters
    ----------
    references
        Where the pipelines are declared.
    listening
        As :func:`bind` gives it.
    workers
        How many processes answer.
    where
        Where everything is kept.
    access
        Who may ask, and how often.

    Raises
    ------
    ChangedError
        If a declaration differs from what is recorded, or what the champion learned.
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
        processes.end_keeper()


def worker_app() -> ASGIApp:
    """Make the application of one worker, from what :func:`serve` left in the environment."""
    end_with_parent()
    log_as(settings(), logging.WARNING)
    pipelines = [load_pipeline(reference) for reference in os.environ[_PIPELINES].splitlines()]
    access = msgspec.json.decode(os.environ[_ACCESS], type=Access)
    return GracefulShutdown(create_app(pipelines, settings(), access=access), _DRAIN_S)


class Workers(Multiprocess):
    """uvicorn's workers, but forked from a process that has imported what they need.

    One that takes the place of another serves within a second; a fresh process imports for several, and
    on a busy machine for more, while its requests wait. One that dies while it is asked whether it lives
    is replaced at once.

    Parameters
    ----------
    config, sockets
        As uvicorn takes them.
    """

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        forked = get_context("forkserver")
        forked.set_forkserver_preload(["headwater.serving.process.preload"])
        forkserver.ensure_running()  # it imports while the keeper does
        _subprocess.spawn = forked  # type: ignore[assignment] # uvicorn has no other way to say so
        super().__init__(config, sockets)

    def keep_subprocess_alive(self) -> None:
        """Replace what died."""
        for process in self.processes:
            # While its end is open here too, who waits for the answer does not hear that nobody is left
            # to give it, and for that minute no other worker is replaced.
            process.child_conn.close()
        super().keep_subprocess_alive()


def _looked(where: Settings) -> bool:
    """Say whether the keeper has begun; raise if it refuses to."""
    check_not_refused(where)
    return (where.root / "live" / "looked").exists()


class _Processes(Workers):
    """The workers, with the keeper beside them, which is started again when it dies."""

    def __init__(
        self,
        config: Config,
        sockets: list[socket.socket],
        references: Sequence[str],
        where: Settings,
    ) -> None:
        super().__init__(config, sockets)
        for left in (where.root / "live" / "looked", refused_file(where)):
            left.unlink(missing_ok=True)
        command = [sys.executable, "-m", "headwater.serving.keeper", *references]
        self._keeper = Child("keeper", command, os.environ, where.root / "logs" / "keeper.log")
        # A worker loads what is published before it takes requests: let there be something.
        self._keeper.await_answer(lambda: _looked(where), _KEEPER_S)

    def keep_subprocess_alive(self) -> None:
        """Replace what died."""
        super().keep_subprocess_alive()
        if self._keeper.status is not None:
            self._keeper.start_again()

    def end_keeper(self) -> None:
        """End the keeper."""
        self._keeper.end()
