"""Run every check of schemathesis on the OpenAPI document: the service does what is documented."""

import subprocess
import sys
from pathlib import Path

import httpx
from tests.loop.conftest import PIPELINE
from tests.patience import PATIENCE_S
from tests.serving.conftest import Opener
from tests.serving.http.test_batch_routes import SCORED, five_keys, scored, watch
from tests.serving.http.test_label_queue_routes import ASKING, fill

from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.serving.keeper.batch_publisher import BatchPublisher
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.keeper.operator_socket import OperatorSocket

__all__ = ["five_keys", "scored", "watch"]

_CONFIG = Path(__file__).parents[3] / "benchmarks" / "http" / "schemathesis.toml"


def test_schemathesis_finds_nothing(client: httpx.Client, tmp_path: Path) -> None:
    finds_nothing(client, tmp_path, "--exclude-path-regex", "/queue|/pipelines/")


def test_schemathesis_finds_nothing_in_the_queue(
    keeper: Keeper, bound: Bound, open_service: Opener, tmp_path: Path
) -> None:
    client = open_service(ASKING)
    fill(bound)
    finds_nothing(client, tmp_path, "--include-path-regex", "/queue")


def test_schemathesis_finds_nothing_in_operator_routes(
    client: httpx.Client, home: Settings, tmp_path: Path
) -> None:
    with OperatorSocket([PIPELINE], home):
        finds_nothing(client, tmp_path, "--include-path-regex", "/pipelines/")


def test_schemathesis_finds_nothing_in_batch_answers(
    watch: BatchPublisher, open_service: Opener, tmp_path: Path
) -> None:
    client = open_service(SCORED)
    assert client.get("/batch/line/customer-17").status_code == 200  # the example of the document
    finds_nothing(client, tmp_path, "--include-path-regex", "/batch")


def finds_nothing(client: httpx.Client, folder: Path, *chosen: str) -> None:
    """Run schemathesis on the chosen paths, and expect no finding."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(_CONFIG), "run"]
    options = ["--checks", "all", "--max-examples", "60", "--seed", "7", "--no-color"]
    options += ["--phases", "examples,coverage,fuzzing", "--generation-database", "none"]
    options += ["--request-timeout", str(PATIENCE_S), "--suppress-health-check", "too_slow"]
    finished = subprocess.run(
        [*command, f"{client.base_url}/openapi.json", *options, *chosen],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-4_000:]
