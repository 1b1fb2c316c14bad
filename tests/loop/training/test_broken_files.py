"""SQLite files that cannot be opened: set aside and made again, or refused by name with the way on."""

from datetime import timedelta
from pathlib import Path

import pytest
from tests.conftest import START
from tests.loop.conftest import PIPELINE, Binder, day

from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.audit import audited
from headwater.loop.binding import Bound
from headwater.loop.damage import check_damage
from headwater.loop.doctor import CheckResult
from headwater.loop.training.update import train
from headwater.spec.data.records import Prediction
from headwater.spec.errors import StorageError

PAGE = 16_384


def overwrite(path: Path, first: int, stop: int) -> bytes:
    """Overwrite bytes of a file that nobody has open; return what it is then."""
    content = bytearray(path.read_bytes())
    content[first:stop] = b"\xff" * (stop - first)
    path.write_bytes(content)
    return bytes(content)


def check(settings: Settings) -> list[CheckResult]:
    return check_damage(settings, by="a test", repair=True)


def late(days: int = 9) -> SimulatedClock:
    return SimulatedClock(START + timedelta(days=days))


def unread(name: str) -> Prediction:
    return Prediction(id=name, features={"a": 1.0, "b": 2.0}, output=0.5, served_at=START)


@pytest.fixture
def inbox(home: Settings) -> Path:
    """Return the inbox of a home whose last record was acknowledged, and not sequenced."""
    with Bound(PIPELINE, home, SimulatedClock(START)) as bound:
        day(bound, 20)
        train(bound)
        bound.log.record([unread("unread")])
        return bound.log.inbox.path


@pytest.mark.parametrize("stop", [100, PAGE])
def test_an_inbox_without_its_first_page_loses_nothing(
    inbox: Path, home: Settings, bind: Binder, stop: int
) -> None:
    damaged = overwrite(inbox, 0, stop)
    with pytest.raises(StorageError, match=r"line\.sqlite"):
        bind()
    (said,) = check(home)
    assert (said.good, "opened again with a new first page" in said.found) == (True, True)
    (aside,) = inbox.parent.glob("*.damaged-*")
    assert aside.read_bytes() == damaged
    bound = bind(late())
    assert bound.log.inbox.end() == 41
    day(bound, 5)
    assert "unread" in set(bound.log.predictions()["prediction_id"])
    assert [one.good for one in check(home)] == [True]
    assert [one.action for one in audited(bound.database, 9) if one.by == "a test"] == ["repair"]


def test_an_inbox_of_which_more_is_damaged_is_made_anew_and_what_is_lost_is_named(
    inbox: Path, home: Settings, bind: Binder
) -> None:
    overwrite(inbox, 0, 5 * PAGE)
    said, lost = check(home)
    assert (said.good, "is lost" in said.found) == (True, True)
    assert (lost.good, "at the positions [41, 42)" in lost.found) == (True, True)
    bound = bind(late())
    assert bound.log.inbox.end() == 41
    before = bound.log.examples()
    bound.log.record([unread("unread")])  # as its sender may
    day(bound, 5)
    assert bound.log.inbox.end() == 52
    assert bound.log.examples(0, 20).equals(before)
    assert train(bound).version is not None


def test_a_database_without_its_first_page_loses_nothing(
    inbox: Path, home: Settings, bind: Binder
) -> None:
    path = inbox.parents[1] / "headwater.sqlite"
    overwrite(path, 0, PAGE)
    with pytest.raises(StorageError, match=r"headwater\.sqlite"):
        bind()
    assert [one.good for one in check(home)] == [True, True]
    bound = bind(late())
    assert bound.registry.champion() is not None
    day(bound, 5)
    assert bound.log.examples().height == 25
    assert len(list(path.parent.glob("headwater.sqlite.damaged-*"))) == 1


def test_a_database_of_which_more_is_damaged_is_refused_and_left_as_it_is(
    inbox: Path, home: Settings
) -> None:
    path = inbox.parents[1] / "headwater.sqlite"
    damaged = overwrite(path, 0, 9 * PAGE)
    (said,) = check(home)
    assert (said.good, "more than its first page is damaged" in said.found) == (False, True)
    assert said.hint is not None
    assert "put a copy back" in said.hint
    assert path.read_bytes() == damaged
    assert not list(path.parent.glob("*damaged*"))


def test_a_file_that_is_in_use_is_left_as_it_is(inbox: Path, home: Settings, bind: Binder) -> None:
    bound = bind()
    path = inbox.parents[1] / "headwater.sqlite"
    bound.database.close()
    damaged = overwrite(path, 0, PAGE)
    (said,) = check(home)
    assert (said.good, "is in use" in said.found) == (False, True)
    assert path.read_bytes() == damaged
