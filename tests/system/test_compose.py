"""The compose file, run without containers: PostgreSQL, S3, MLflow and Prefect as it starts them."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from sqlalchemy import create_engine, text
from tests.features.conftest import S3
from tests.infra.postgres import running_postgres
from tests.system.composed import COMPOSE, Composed
from tests.system.test_stack import TOY
from tests.system.up import await_

from headwater.infra.processes import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(1_500)]

_START_S = 600.0
SECRETS = {
    "HEADWATER_SIGNING_KEY": "a key that signs",
    "POSTGRES_PASSWORD": "secret",
    "PREFECT_PASSWORD": "0123abcd",
    "S3_ACCESS_KEY": "test",
    "S3_SECRET_KEY": "test",
}


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """Prefect and MLflow as the file starts them, on PostgreSQL and S3."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("home", "prefect", "logs", "files")}
    folders["/pipelines"] = folders.pop("files")
    (folders["/pipelines"] / "toy.py").write_text(TOY)
    given = {
        **SECRETS,
        "HEADWATER_PIPELINES": str(folders["/pipelines"]),
        "HEADWATER_PIPELINE": "/pipelines/toy.py:toy",
        "HEADWATER_WORKERS": "1",
    }
    s3 = S3()
    with ExitStack() as stack:
        stack.callback(s3.end)
        server = stack.enter_context(running_postgres())
        engine = create_engine(server.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("CREATE DATABASE headwater"))  # the image does, by POSTGRES_DB
            for line in (COMPOSE.parent / "postgres" / "databases.sql").read_text().splitlines():
                if not line.startswith("--"):
                    connection.execute(text(line))
        engine.dispose()
        ports = {
            "postgres:5432": server.port,
            "s3:7070": int(s3.endpoint.rpartition(":")[2]),
            **{name: free_port(0, "") for name in ("service:8000", "worker:8080")},
            **{name: free_port(0, "") for name in ("mlflow:5000", "prefect:4200")},
        }
        found = Composed(given, ports, folders)
        started = {name: stack.enter_context(found.started(name)) for name in ("mlflow", "prefect")}
        for name, process in started.items():
            await_up(found, name, process)
        yield found


def await_up(composed: Composed, name: str, process: "subprocess.Popen[bytes]") -> None:
    def up() -> bool:
        assert process.poll() is None, composed.log(name)
        return composed.is_healthy(name)

    await_(up, _START_S)


def headwater(composed: Composed, *command: str) -> str:
    """Run a command in the worker's environment, as ``docker compose exec worker`` does."""
    ran = composed.run("worker", "headwater", *command)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_every_store_answers(composed: Composed) -> None:
    found = json.loads(headwater(composed, "doctor", "--json"))
    assert all(one["good"] for one in found), found


def test_pages_answer_to_their_names_alone_and_prefect_asks_who_it_is(composed: Composed) -> None:
    environment = composed.environment("service")
    mlflow, prefect = environment["HEADWATER_MLFLOW_URI"], environment["PREFECT_API_URL"]
    asked = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert httpx.get(asked, headers={"Host": "mlflow:5000"}).status_code == 200
    assert httpx.get(asked, headers={"Host": "elsewhere.example"}).status_code == 403
    body = {"limit": 1}
    assert httpx.post(f"{prefect}/flows/filter", json=body).status_code == 401
    user, _, password = environment["PREFECT_API_AUTH_STRING"].partition(":")
    assert httpx.post(f"{prefect}/flows/filter", json=body, auth=(user, password)).status_code == 200
