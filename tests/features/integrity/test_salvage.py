"""An inbox in which a page is damaged is written anew, and nothing that was sequenced is lost."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.features.integrity.test_damaged_rows import fill
from tests.features.records import drain, seen

from headwater.features.integrity.salvage import Salvaged, salvage
from headwater.features.integrity.scrub import Scrub
from headwater.features.log import FeatureLog
from headwater.spec.errors import BusyError

Opener = Callable[..., FeatureLog]
_PAGE = 16_384


def overwrite(log: FeatureLog, *words: bytes) -> Path:
    """Close an inbox, and overwrite the page in which each of some words stands first."""
    path = log.inbox.path
    log.inbox.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    for at in [content.find(word) // _PAGE * _PAGE for word in words]:
        content[at : at + _PAGE] = b"\xff" * _PAGE
    path.write_bytes(content)
    return path


def entries(log: FeatureLog) -> list[tuple[object, ...]]:
    return [row[1:3] + row[4:] for row in log.inbox.read(0, 10**6)]


def test_what_was_sequenced_comes_back_from_the_database(log: FeatureLog, open_log: Opener) -> None:
    fill(log, 0, 600)
    drain(log)
    before = entries(log)
    path = overwrite(log, b'"prediction_id":"p200"', b'"prediction_id":"p401"')
    salvaged = salvage(path, log.database, log.pipeline_id)
    assert salvaged is not None
    assert salvaged.whole + salvaged.given_back == 1_200
    assert salvaged.given_back > 100
    again = open_log()
    assert entries(again) == before
    assert again.inbox.identity == log.inbox.identity
    assert Scrub(again).whole() is None
    fill(again, 600, 610)
    assert drain(again) == 10
    fill(again, 0, 3)  # they are known still
    assert drain(again) == 0


def test_what_was_not_sequenced_is_lost_by_name(log: FeatureLog, open_log: Opener) -> None:
    fill(log, 0, 300)
    drain(log)
    fill(log, 300, 600)
    path = overwrite(log, b'"prediction_id":"p200"', b'"prediction_id":"p401"')
    salvaged = salvage(path, log.database, log.pipeline_id)
    assert salvaged is not None
    again = open_log()
    drain(again)
    lost = {f"p{i}" for i in range(600)} - {id_ for id_, _ in seen(again)}
    assert "p401" in lost
    assert 300 - len(lost) < 300
    assert min(int(id_[1:]) for id_ in lost) >= 300
    with again.database.reading() as connection:
        named = connection.exec_driver_sql("SELECT count(*) FROM lost_entry").scalar_one()
    assert named == 1_200 - salvaged.whole - salvaged.given_back


def test_a_whole_inbox_is_left_and_a_used_one_is_refused(log: FeatureLog, open_log: Opener) -> None:
    fill(log, 0, 300)
    drain(log)
    assert salvage(log.inbox.path, log.database, log.pipeline_id) is None
    path = overwrite(log, b'"prediction_id":"p200"')
    content = path.read_bytes()
    again = open_log()
    with pytest.raises(BusyError, match="in use"):
        salvage(path, log.database, log.pipeline_id)
    again.close()
    assert path.read_bytes() == content
    assert isinstance(salvage(path, log.database, log.pipeline_id), Salvaged)


@pytest.mark.parametrize("store", ["inbox", "database"])
def test_damage_is_found_although_the_pages_were_read_before(log: FeatureLog, store: str) -> None:
    """SQLite keeps the pages that a connection has read, as long as no other one writes."""
    fill(log, 0, 600)
    drain(log)
    path = log.inbox.path if store == "inbox" else Path(str(log.database.engine.url.database))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    scrub = Scrub(log)
    assert scrub.whole() is None
    at = path.read_bytes().find(b'"prediction_id":"p200"') // _PAGE * _PAGE
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * _PAGE)
    found = scrub.whole()
    assert found is not None
    assert "positions" in found.what
