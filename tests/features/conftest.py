"""A real S3 service, moto's server, as a process; one for all tests of this folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.features.relay import Relay

from headwater.infra.processes import free_port
from headwater.infra.settings import Settings


class S3:
    """moto's server, behind a relay that a test can cut."""

    def __init__(self) -> None:
        self.port = free_port(0, "moto")
        self._start()
        self.relay = Relay(self.port)
        self.endpoint = f"http://127.0.0.1:{self.relay.port}"

    def _start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "Running on" in line:
                return
        raise RuntimeError("moto's server did not start")

    def end(self) -> None:
        self.relay.cut()
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    server = S3()
    yield server
    server.end()


@pytest.fixture
def on_s3(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    os.environ.pop("AWS_PROFILE", None)
    bucket = f"bucket-{abs(hash(str(tmp_path))) % 10**9}"
    return Settings(home=tmp_path / "home", storage=f"s3://{bucket}/log", s3_endpoint=s3.endpoint)
