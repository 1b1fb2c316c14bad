"""MLflow's scoring server, BentoML and MLServer: how each is started, and how it is spoken to.

Beside this are what each is installed from, and the model as each documents to serve one of one's own.
All run with uvloop and httptools, in their production mode, with one worker and no log of accesses.
"""

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.service.load import free_port

__all__ = ["FOLDER", "NAMES", "PEERS", "Features", "Peer"]

FOLDER = Path(__file__).parent
NAMES = tuple(f"x{n}" for n in range(20))
Features = dict[str, float]


class Peer(NamedTuple):
    """A server of models that others make, and how it is spoken to.

    Parameters
    ----------
    name
        Of this way to serve.
    package
        What is installed, from the requirements file of that name.
    path
        Where it answers one row.
    body
        Turns features into what its JSON says.
    read
        Gives the probability that its answer holds.
    command
        Gives the command that serves an estimator: from the folder of the peer's programs, a folder to
        write to, the file of the estimator, and a port.
    """

    name: str
    package: str
    path: str
    body: Callable[[Features], object]
    read: Callable[[Any], float]
    command: Callable[[Path, Path, Path, int], Sequence[str]]


def _serve_mlflow(programs: Path, folder: Path, estimator: Path, port: int) -> Sequence[str]:
    save = [programs / "python", FOLDER / "mlflow_save.py", estimator, folder / "model"]
    subprocess.run(save, check=True, capture_output=True)
    where = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    model = str(folder / "model")
    return [str(programs / "mlflow"), "models", "serve", "-m", model, "--env-manager", "local", *where]


def _serve_bentoml(programs: Path, _folder: Path, _estimator: Path, port: int) -> Sequence[str]:
    where = ("--host", "127.0.0.1", "--port", str(port), "--working-dir", str(FOLDER))
    return [str(programs / "bentoml"), "serve", "bentoml_service:Served", *where]


def _serve_mlserver(workers: int) -> Callable[[Path, Path, Path, int], Sequence[str]]:
    def command(programs: Path, folder: Path, estimator: Path, port: int) -> Sequence[str]:
        (folder / "mlserver_runtime.py").write_text((FOLDER / "mlserver_runtime.py").read_text())
        parameters = {"uri": str(estimator), "extra": {"names": NAMES}}
        model = {"name": "served", "implementation": "mlserver_runtime.Served", "parameters": parameters}
        (folder / "model-settings.json").write_text(json.dumps(model))
        ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        server = {"parallel_workers": workers, "debug": False, "host": "127.0.0.1"}
        (folder / "settings.json").write_text(json.dumps(server | ports))
        return [str(programs / "mlserver"), "start", str(folder)]

    return command


def _tensor(features: Features) -> object:
    values = [features[name] for name in NAMES]
    return {"inputs": [{"name": "x", "shape": [1, 20], "datatype": "FP64", "data": values}]}


def _mlserver(workers: int) -> Peer:
    return Peer(
        f"mlserver_{workers}",
        "mlserver",
        "/v2/models/served/infer",
        _tensor,
        lambda answer: float(answer["outputs"][0]["data"][0]),
        _serve_mlserver(workers),
    )


PEERS = (
    Peer(
        "mlflow",
        "mlflow",
        "/invocations",
        lambda features: {"inputs": [features]},
        lambda answer: float(answer["predictions"][0]),
        _serve_mlflow,
    ),
    Peer(
        "bentoml",
        "bentoml",
        "/predict",
        lambda features: {"features": features},
        float,
        _serve_bentoml,
    ),
    _mlserver(0),
    _mlserver(1),
)
"""MLServer answers in its own process, or in one worker beside it: both are measured."""
