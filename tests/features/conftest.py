"""A real S3 service, moto's server, as a process; one for all tests of this folder."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.features.relay import Relay
from tests.patience import PATIENCE_S

from headwater.infra.processes import Child, fetch, free_port
from headwater.infra.settings import Settings


class S3:
    """moto's server, behind a relay that a test can cut."""

    def __init__(self, folder: Path) -> None:
        port = free_port(0, "moto")
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        # Its output goes to a file: a pipe that nobody reads would stop it after so many requests.
        self._child = Child("moto", command, os.environ, folder / "moto.log")
        self._child.await_answer(lambda: fetch(port, "/moto-api/data.json") is not None, PATIENCE_S)
        self.relay = Relay(port)
        self.endpoint = f"http://127.0.0.1:{self.relay.port}"

    def end(self) -> None:
        self.relay.cut()
        self._child.end()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    server = S3(tmp_path_factory.mktemp("moto"))
    yield server
    server.end()


@pytest.fixture
def on_s3(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    # An earlier test of this process may have used another server: each folder has its own.
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3.endpoint)
    os.environ.pop("AWS_PROFILE", None)
    bucket = f"bucket-{abs(hash(str(tmp_path))) % 10**9}"
    return Settings(home=tmp_path / "home", storage=f"s3://{bucket}/log", s3_endpoint=s3.endpoint)
