"""The command line, called as a user calls it but in this process; one home a test."""

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


class Said(NamedTuple):
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed as JSON."""
        return json.loads(self.out)


Run = Callable[..., Said]


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
    """Run ``headwater`` with arguments, on the test's home and with other variables as asked."""
    monkeypatch.setenv("HEADWATER_HOME", str(home.root))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, **variables: str) -> Said:
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
            said = capsys.readouterr()
        assert isinstance(status, int)
        return Said(status, said.out, said.err)

    return call


def history(path: Path, start: int = 0, stop: int = 200, **changes: pl.Expr) -> str:
    """Write a table of predictions with their labels, one a minute; changed as asked."""
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
