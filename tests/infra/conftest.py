"""A database of its own for each test, of each kind, and the S3 service of the feature log's tests."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from sqlalchemy import create_engine, text
from tests.features.conftest import on_s3, s3
from tests.infra.postgres import running_postgres

from headwater.infra.settings import Settings
from headwater.infra.store.database import Database

__all__ = ["database", "new_postgres", "on_s3", "s3", "sqlite"]


@pytest.fixture(scope="session")
def new_postgres() -> Iterator[Callable[[], str]]:
    """Make an empty database in a PostgreSQL of the test run, and give its address."""
    numbers = count()
    with running_postgres() as server:
        engine = create_engine(server.url("postgres"), isolation_level="AUTOCOMMIT")

        def make() -> str:
            name = f"test_{next(numbers)}"
            with engine.connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
            return server.url(name, driver="postgresql")  # as users write it

        yield make
        engine.dispose()


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
