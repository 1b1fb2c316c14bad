"""Call the command line as a user does, but in this process; each test has its own home."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from tests.loop.conftest import mlflow_template

from headwater.cli import main
from headwater.infra.settings import Settings
from headwater.infra.settings import settings as read_settings

__all__ = ["mlflow_template"]

TOYS = str(Path(__file__).parent / "toys.py")
TOY = f"{TOYS}:toy"
_FIRST = datetime(2024, 1, 1, tzinfo=UTC)


class CommandResult(NamedTuple):
    """The exit status of a command, and its output."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The standard output, read as JSON."""
        return json.loads(self.out)


Run = Callable[..., CommandResult]


@pytest.fixture
def home(tmp_path: Path, mlflow_template: Path) -> Settings:
    settings = Settings(home=tmp_path / "home")
    (settings.root / "mlflow.sqlite").write_bytes(mlflow_template.read_bytes())
    return settings


@pytest.fixture
def run(
    home: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run ``headwater`` with arguments, on the test's home, with environment variables as given."""
    monkeypatch.setenv("HEADWATER_HOME", str(home.root))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, **variables: str) -> CommandResult:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["headwater", *arguments])
            for name, value in variables.items():
                patched.setenv(name, value)
            read_settings.cache_clear()
            capsys.readouterr()
            status: object = 0
            try:
                main()
            except SystemExit as ended:
                status = ended.code
            finally:
                read_settings.cache_clear()
            output = capsys.readouterr()
        assert isinstance(status, int)
        return CommandResult(status, output.out, output.err)

    return call


def history(path: Path, start: int = 0, stop: int = 200, **changes: pl.Expr) -> str:
    """Write a table of predictions with their labels, one a minute, with columns changed as given."""
    served = [_FIRST + timedelta(minutes=i) for i in range(start, stop)]
    frame = pl.DataFrame(
        {
            "id": [f"p{i}" for i in range(start, stop)],
            "served_at": served,
            "known_at": [moment + timedelta(hours=1) for moment in served],
            "label": [i % 3 == 0 for i in range(start, stop)],
            "x": [float(i % 3 == 0) for i in range(start, stop)],
            "y": [i % 7.0 for i in range(start, stop)],
        }
    )
    frame.with_columns(**changes).write_parquet(path)
    return str(path)
