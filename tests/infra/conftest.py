"""A database of its own for each test, of each kind, and the S3 service of the feature log's tests."""

from collections.abc import Callable, Iterator

import pytest
from benchmarks.faults.postgres_server import running_postgres
from tests.features.conftest import on_s3, s3

from headwater.infra.settings import Settings
from headwater.infra.store.database import Database

__all__ = ["database", "new_postgres", "on_s3", "s3", "sqlite"]


@pytest.fixture(scope="session")
def new_postgres() -> Iterator[Callable[[], str]]:
    """Make an empty database in a PostgreSQL of the test run, and give its address."""
    with running_postgres() as server:
        yield server.new_database


@pytest.fixture
def sqlite(settings: Settings) -> Iterator[Database]:
    opened = Database(settings.operational_url)
    yield opened
    opened.close()


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def database(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Database]:
    on_postgres = request.param == "PostgreSQL"
    url = request.getfixturevalue("new_postgres")() if on_postgres else settings.operational_url
    opened = Database(url)
    yield opened
    opened.close()
