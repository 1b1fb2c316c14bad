"""A home that was trained, on each kind of store, and its way into a backup and back."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.conftest import START
from tests.infra.conftest import new_postgres, on_s3, s3
from tests.loop.conftest import PIPELINE, day

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.training.update import train

__all__ = ["new_postgres", "on_s3", "s3"]


def key_of(settings: Settings) -> str:
    return settings.key().decode()


def elsewhere(settings: Settings, folder: Path, **changes: object) -> Settings:
    """Return settings of an empty home, with the key of another one."""
    fields: dict[str, object] = {"home": folder, "signing_key": key_of(settings)}
    return Settings(**fields | changes)  # type: ignore[arg-type]


@pytest.fixture(params=["disk", "S3", "PostgreSQL"])
def stores(request: pytest.FixtureRequest, home: Settings) -> Settings:
    """A home, with its tables in a folder or on S3, and its rows in SQLite or PostgreSQL."""
    if request.param == "S3":
        found: Settings = request.getfixturevalue("on_s3")
        return home.model_copy(update={"storage": found.storage, "s3_endpoint": found.s3_endpoint})
    if request.param == "PostgreSQL":
        return home.model_copy(update={"database_url": request.getfixturevalue("new_postgres")()})
    return home


@pytest.fixture
def open_bound() -> Iterator[Callable[..., Bound]]:
    """Bind the pipeline of the tests to a home."""
    opened: list[Bound] = []

    def opener(settings: Settings, clock: SimulatedClock | None = None, **changes: object) -> Bound:
        pipeline = msgspec.structs.replace(PIPELINE, **changes)
        opened.append(Bound(pipeline, settings, clock or SimulatedClock(START)))
        return opened[-1]

    yield opener
    for bound in opened:
        bound.close()


def grow(bound: Bound) -> None:
    """Let a day pass, and train and promote a version on it."""
    day(bound)
    version = train(bound, by="test").version
    assert version is not None
    bound.registry.promote(version.number, by="test", reason="test")
