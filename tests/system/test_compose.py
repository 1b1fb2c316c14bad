"""The compose file, run without containers: PostgreSQL, S3, MLflow, Prefect, its worker, the service."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text
from tests.features.conftest import S3
from tests.infra.postgres import running_postgres
from tests.system.composed import COMPOSE, Composed
from tests.system.test_stack import TOY
from tests.system.up import await_

from headwater.infra.processes import free_port
from headwater.serving.client import Client

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


def history(path: Path, rows: int) -> None:
    began = datetime.now(UTC) - timedelta(hours=2)
    lines = ["id,served_at,label,known_at,x,y"]
    for row in range(rows):
        at = began + timedelta(seconds=row)
        lines.append(
            f"p-{row},{at:%Y-%m-%dT%H:%M:%SZ},{row % 3 == 0},{at:%Y-%m-%dT%H:%M:%SZ},{row % 3},1.0"
        )
    path.write_text("\n".join(lines))


def test_a_pipeline_goes_round_on_what_the_file_starts(composed: Composed, tmp_path: Path) -> None:
    def headwater(*command: str) -> str:
        ran = composed.run("worker", "headwater", *command)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    found = json.loads(headwater("doctor", "--json"))
    assert all(one["good"] for one in found), found
    history(tmp_path / "history.csv", 300)
    headwater("import", "toy.py:toy", str(tmp_path / "history.csv"))
    assert json.loads(headwater("train", "toy.py:toy", "--json"))["promoted"] is True

    listens = [part.replace("127.0.0.1", "0.0.0.0") for part in composed.command("service")]
    refused = composed.run("service", *listens)
    assert refused.returncode != 0
    assert "headwater keys add" in refused.stderr
    key = headwater("keys", "add", "shop", "--scope", "predict", "--scope", "label").strip()

    with composed.started("service") as service, composed.started("worker") as worker:
        await_up(composed, "service", service)
        (port,) = [part[7:] for part in composed.command("service") if part.startswith("--port=")]
        address = f"http://127.0.0.1:{port}"
        with Client(address, key=key) as client:
            await_(client.is_ready, _START_S)
            answer = client.predict({"x": 1.0, "y": 1.0})
            client.label(answer.id, True)
        deployed = json.loads(headwater("deploy", "toy.py:toy", "--json"))
        assert {one["name"] for one in deployed} >= {"collect/toy", "fine-tune/toy"}
        await_up(composed, "worker", worker)
        ran = composed.run("worker", "prefect", "deployment", "run", "fine-tune/toy", "--watch")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        versions = json.loads(headwater("versions", "toy", "--json"))
        assert [version["number"] for version in versions] == ["1", "2"]
        with Client(address, key=key) as client:
            await_(lambda: client.predict({"x": 1.0, "y": 1.0}).version == "2", 60)
    assert service.returncode == 0, composed.log("service")


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
