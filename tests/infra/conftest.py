"""A database of its own for each test, and the S3 service of the feature log's tests."""

from collections.abc import Iterator

import pytest
from tests.features.conftest import on_s3, s3

from headwater.infra.database import Database
from headwater.infra.settings import Settings

__all__ = ["database", "on_s3", "s3"]


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    opened = Database(settings.operational_url)
    yield opened
    opened.close()
