"""The compose file, run without containers: PostgreSQL, S3, MLflow and Prefect as it starts them."""

import json
import random
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from benchmarks.faults.postgres_server import running_postgres
from sqlalchemy import create_engine, text
from tests.features.conftest import S3
from tests.patience import PATIENCE_S, await_
from tests.system.composed import COMPOSE, Composed
from tests.system.test_stack import EVERY, TOY

from headwater.infra.processes import free_port
from headwater.serving.client.client import Client

pytestmark = pytest.mark.system

_PIPELINE = "/pipelines/toy.py:toy"
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
        "HEADWATER_PIPELINE": _PIPELINE,
        "HEADWATER_WORKERS": "1",
    }
    s3 = S3(folders["logs"])
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

    await_(up, lambda: composed.log(name))


def headwater(composed: Composed, *command: str) -> str:
    """Run a command in the worker's environment, as ``docker compose exec worker`` does."""
    ran = composed.run("worker", "headwater", *command)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_every_store_answers(composed: Composed) -> None:
    looked = composed.run("worker", "headwater", "doctor", "--json")
    bad = [one["found"] for one in json.loads(looked.stdout) if not one["good"]]
    assert all("there is no bucket" in one for one in bad)  # the first command that writes makes it
    made = (
        "from headwater.infra.settings import settings; from headwater.infra.store.open_storage import"
    )
    made += " open_storage; open_storage(settings()).prepare()"
    assert composed.run("worker", "python", "-c", made).returncode == 0
    found = json.loads(headwater(composed, "doctor", "--json"))
    assert all(one["good"] for one in found), found


def test_pages_answer_to_their_names_alone_and_prefect_asks_for_a_password(composed: Composed) -> None:
    environment = composed.environment("service")
    mlflow, prefect = environment["HEADWATER_MLFLOW_URI"], environment["PREFECT_API_URL"]
    asked = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert httpx.get(asked, headers={"Host": "mlflow:5000"}, timeout=PATIENCE_S).status_code == 200
    assert httpx.get(asked, headers={"Host": "elsewhere.example"}, timeout=PATIENCE_S).status_code == 403
    asked, body = f"{prefect}/flows/filter", {"limit": 1}
    assert httpx.post(asked, json=body, timeout=PATIENCE_S).status_code == 401
    user, _, password = environment["PREFECT_API_AUTH_STRING"].partition(":")
    known = httpx.post(asked, json=body, auth=(user, password), timeout=PATIENCE_S)
    assert known.status_code == 200


def test_the_worker_learns_labels_of_the_service_which_serves_the_version(composed: Composed) -> None:
    file = _history(composed)
    here = composed.command("service")[2]  # the pipeline, as it is found on this machine
    headwater(composed, "import", here, file)
    headwater(composed, "train", here)
    scopes = ("--scope", "predict", "--scope", "label")
    key = headwater(composed, "keys", "add", "shop", *scopes).split()[-1]
    with ExitStack() as stack:
        for name in ("service", "worker"):
            await_up(composed, name, stack.enter_context(composed.started(name)))
        address = f"http://127.0.0.1:{composed.command('service')[4].partition('=')[2]}"
        client = stack.enter_context(Client(address, key=key, timeout_s=PATIENCE_S))
        assert client.predict({"x": 1.0, "y": 0.0}).version == "1"
        asked = [{"id": f"live-{n}", "features": {"x": n % 7 - 3.0, "y": 0.5}} for n in range(200)]
        client.send_predictions(asked)
        client.send_labels([{"prediction_id": f"live-{n}", "value": n % 7 > 3} for n in range(200)])
        headwater(composed, "deploy", here, "--collect-every", EVERY)
        assert _run(composed, "fine-tune", "toy") == "COMPLETED", composed.log("worker")
        await_(lambda: client.predict({"x": 1.0, "y": 0.0}).version == "2")
    assert json.loads(headwater(composed, "lineage", here, "--json"))[-1]["parent"] == "1"


def _history(composed: Composed) -> str:
    rng, at = random.Random(3), datetime.now(UTC) - timedelta(days=3)
    rows = ["id,served_at,label,known_at,x,y"]
    for n in range(300):
        x, served, known = rng.gauss(0, 1), at + timedelta(minutes=n), at + timedelta(minutes=n + 5)
        rows.append(f"past-{n},{served.isoformat()},{x > 0},{known.isoformat()},{x},0.5")
    path = composed.files / "history.csv"
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def _run(composed: Composed, flow: str, deployment: str) -> str:
    """Run a deployment as its page does, and give how it ended."""
    environment = composed.environment("worker")
    user, _, password = environment["PREFECT_API_AUTH_STRING"].partition(":")
    with httpx.Client(
        base_url=environment["PREFECT_API_URL"], auth=(user, password), timeout=PATIENCE_S
    ) as prefect:
        found = prefect.get(f"/deployments/name/{flow}/{deployment}").json()["id"]
        run = prefect.post(f"/deployments/{found}/create_flow_run", json={}).json()["id"]

        def ended() -> str | None:
            state = prefect.get(f"/flow_runs/{run}").json()["state"]["type"]
            return state if state in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None

        return await_(ended, lambda: composed.log("worker"))
