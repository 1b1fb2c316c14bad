"""The commands of the stack's processes, and their environment."""

import os
import sys
from collections.abc import Iterator, Sequence

from headwater.flows.stack.prefect_environment import environment
from headwater.infra.offline import quiet
from headwater.infra.processes import Mark
from headwater.infra.settings import Settings

__all__ = [
    "POOL",
    "key_variables",
    "mlflow_command",
    "mlflow_variables",
    "server_command",
    "service_command",
    "stack_variables",
    "worker_command",
]

POOL = "headwater"
"""Name of the work pool, and of its worker."""

_LEASES = "prefect.server.concurrency.lease_storage.filesystem"
"""By default leases are in memory: they die with the server, and their slots stay taken."""

_RUNS_AT_ONCE = 2
_INHERITED = ("PREFECT_SERVER_", "PREFECT_LOGGING_")


def server_command(port: int) -> list[str]:
    """Return the command that starts Prefect's server."""
    return [sys.executable, "-m", "headwater.flows.stack.prefect_server", str(port)]


def mlflow_command(port: int) -> list[str]:
    """Return the command that starts MLflow's server."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--no-serve-artifacts"]
    return [*command, "--uvicorn-opts", "--http headwater.flows.stack.doors:MlflowHttp --ws none"]


def worker_command() -> list[str]:
    """Return the command that starts the worker."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--name", POOL]
    return [*command, "--type", "process", "--limit", str(_RUNS_AT_ONCE), "--install-policy", "never"]


def service_command(pipelines: Sequence[str], port: int) -> list[str]:
    """Return the command that starts the service for pipelines."""
    return [sys.executable, "-m", "headwater.cli", "serve", *pipelines, "--port", str(port)]


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


def key_variables(key: str) -> dict[str, str]:
    """Return the variables by which Prefect's server asks for a key, and everything else sends it."""
    return {"PREFECT_SERVER_API_AUTH_STRING": key, "PREFECT_API_AUTH_STRING": key}


def _pages(port: int) -> list[str]:
    """List the addresses of a server's pages, which may read its answers."""
    return [f"http://{name}:{port}" for name in ("127.0.0.1", "localhost")]


def mlflow_variables(settings: Settings) -> dict[str, str]:
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
