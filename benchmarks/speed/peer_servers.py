"""An environment for each peer, made from its pins, and the peer running in it on the server's core."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from benchmarks.service.load import Server, free_port, pin_server
from benchmarks.speed.peer_setups import FOLDER, NAMES, Peer

__all__ = ["NotInstalledError", "peer_server", "programs_of", "version_of"]

_ENVIRONMENTS = Path(sys.prefix) / "peers"
_START_S = 300.0
_END_S = 20.0
_PAUSE_S = 0.2
_QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "UVICORN_ACCESS_LOG": "false",
}


class NotInstalledError(Exception):
    """A peer's environment cannot be made here; the text is what its installer says."""


def programs_of(package: str) -> Path:
    """Give the folder of a peer's programs; installed by hash, once for each list of pins.

    Raises
    ------
    NotInstalledError
        If that fails.
    """
    pins = FOLDER / f"{package}.txt"
    mark = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = _ENVIRONMENTS / f"{package}-{mark}"
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _install(folder, pins)
        (folder / "installed").touch()
    return folder / "bin"


def version_of(package: str) -> str:
    """Give the version that a peer is pinned to."""
    lines = (FOLDER / f"{package}.txt").read_text().splitlines()
    (found,) = [line for line in lines if line.startswith(f"{package}==")]
    return found.removeprefix(f"{package}==").split()[0]


@contextmanager
def peer_server(peer: Peer, estimator: Path, folder: Path) -> Iterator[Server]:
    """Serve an estimator until the block ends, as the peer documents.

    Parameters
    ----------
    peer
        Which, and how.
    estimator
        A pickle of River's.
    folder
        To be made, for what the peer writes.

    Raises
    ------
    NotInstalledError
        If the peer cannot be installed.
    TimeoutError
        If it does not answer within five minutes; the text has the end of its log.
    """
    programs, port = programs_of(peer.package), free_port()
    folder.mkdir()
    command = peer.command(programs, folder, estimator, port)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_variables(programs, folder, estimator),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _await_answer(process, f"http://127.0.0.1:{port}{peer.path}", peer, folder / "log")
        found = Server(port, psutil.Process(process.pid))
        pin_server(found.process)
        yield found
    finally:
        _end(process)


def _install(folder: Path, pins: Path) -> None:
    uv, python = Path(sys.prefix) / "bin" / "uv", folder / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", "--without-pip", folder],
        [uv, "pip", "install", "--python", python, "--require-hashes", "-r", pins],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotInstalledError(done.stderr.strip()[-500:])


def _variables(programs: Path, folder: Path, estimator: Path) -> dict[str, str]:
    """Give a peer's environment: no telemetry; bytecode is kept, for they import for a minute."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    own = {
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "BENTOML_HOME": str(folder / "bentoml"),
        "PEER_ESTIMATOR": str(estimator),
    }
    return kept | _QUIET | own


def _await_answer(process: "subprocess.Popen[bytes]", address: str, peer: Peer, log: Path) -> None:
    body = peer.body(dict.fromkeys(NAMES, 0.0))
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.post(address, json=body, timeout=30).is_success:
                return
        time.sleep(_PAUSE_S)
    raise TimeoutError(f"{peer.name} does not answer: {log.read_text()[-2000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server and what it started: in order where it follows, or else at once."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(process.pid)
        family = [first, *first.children(recursive=True)]
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.terminate()
    for one in psutil.wait_procs(family, timeout=_END_S)[1]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
