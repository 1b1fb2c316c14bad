"""The stores that homes are put on: SQLite and PostgreSQL, a folder and moto's S3."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.postgres_server import running_postgres
from headwater.infra.processes import Child, fetch, free_port
from headwater.infra.settings import Settings

__all__ = ["KINDS", "Backend", "backends", "running_s3"]

KINDS = ("SQLite", "PostgreSQL", "S3")
"""Where a home keeps its database and its storage, if not in files below it."""

_START_S = 600.0


class Backend(NamedTuple):
    """A kind of stores, and what makes the settings of a new home on it."""

    kind: str
    settings: Callable[[Path], Settings]


@contextmanager
def running_s3() -> Iterator[str]:
    """Start moto's server of S3; yield its address."""
    port = free_port(0, "")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
    with tempfile.TemporaryDirectory(prefix="headwater-moto-") as folder:
        moto = Child("moto", command, os.environ, Path(folder) / "moto.log")
        try:
            moto.await_answer(lambda: fetch(port, "/moto-api/data.json") is not None, _START_S)
            yield f"http://127.0.0.1:{port}"
        finally:
            moto.end()


@contextmanager
def backends(kinds: Sequence[str]) -> Iterator[list[Backend]]:
    """Start what the kinds need; yield them in their order."""
    with ExitStack() as stack:
        yield [_backend(kind, stack) for kind in kinds]


def _backend(kind: str, stack: ExitStack) -> Backend:
    if kind == "PostgreSQL":
        postgres = stack.enter_context(running_postgres())
        return Backend(kind, lambda home: Settings(home=home, database_url=postgres.new_database()))
    if kind == "S3":
        endpoint, numbers = stack.enter_context(running_s3()), count()
        return Backend(
            kind,
            lambda home: Settings(
                home=home, storage=f"s3://lined-{next(numbers)}/log", s3_endpoint=endpoint
            ),
        )
    return Backend(kind, lambda home: Settings(home=home))
