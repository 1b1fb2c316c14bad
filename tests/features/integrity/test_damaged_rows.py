"""Damage in inbox and database is found, bounded and named; a whole copy is read, or mends the row."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.features.records import drain, label, prediction, seen

from headwater.features.integrity.mending import mend
from headwater.features.integrity.scrub import Scrub
from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.registry.rulings.quarantine import Quarantine
from headwater.spec.errors import DamagedError
from headwater.spec.recipe import OffsetRange

Opener = Callable[..., FeatureLog]


def fill(log: FeatureLog, start: int, stop: int) -> None:
    for i in range(start, stop):
        log.record([prediction(f"p{i}", x=float(i))])
        log.label([label(f"p{i}", i % 3 == 0)])


def change(path: Path, statement: str, *values: object) -> None:
    """Change a row of a file as a disk does: without its checksum."""
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement, values).rowcount == 1


def database_of(log: FeatureLog) -> Path:
    return Path(str(log.database.engine.url.database))


CHANGES = {
    "payload": "UPDATE {} SET payload = replace(payload, '1', '7') WHERE position = ?",
    "cut": "UPDATE {} SET payload = substr(payload, 1, 20) WHERE position = ?",
    "time": "UPDATE {} SET {}_at_us = {}_at_us + 4096 WHERE position = ?",
    "type": "UPDATE {} SET payload = 'text' WHERE position = ?",
    "id": "UPDATE {} SET id = 'p9x' WHERE position = ?",
    "gone": "DELETE FROM {} WHERE position = ?",
}


@pytest.mark.parametrize("kind", list(CHANGES))
@pytest.mark.parametrize("position", [3, 4], ids=["prediction", "label"])
def test_an_entry_that_is_damaged_before_it_is_sequenced_is_lost_by_name_and_the_rest_goes_on(
    log: FeatureLog, kind: str, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    fill(log, 0, 5)
    change(log.inbox.path, CHANGES[kind].format("entry", "received", "received"), position)
    assert drain(log) == 4
    assert [id_ for id_, _ in seen(log)] == ["p0", "p2", "p3", "p4"]
    assert f"at the positions [{position}, {position + 1})" in caplog.text
    with log.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT position FROM lost_entry").all()
    assert [row[0] for row in rows] == [position]
    fill(log, 5, 6)
    assert drain(log) == 1


def test_a_damaged_page_of_the_inbox_loses_what_lay_in_it_and_no_more(
    log: FeatureLog, pipeline: object, settings: Settings, clock: SimulatedClock
) -> None:
    fill(log, 0, 400)
    log.inbox.close()
    with closing(sqlite3.connect(log.inbox.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(log.inbox.path.read_bytes())
    at = content.find(b'"prediction_id":"p200"')
    page = at // 16_384
    content[page * 16_384 : (page + 1) * 16_384] = b"\xff" * 16_384
    log.inbox.path.write_bytes(content)
    again = FeatureLog(log.pipeline, settings, clock, log.database)
    emitted = drain(again)
    lost = {f"p{i}" for i in range(400)} - {id_ for id_, _ in seen(again)}
    assert 0 < len(lost) < 200
    assert emitted == 400 - len(lost)
    assert "p200" in lost
    again.close()


@pytest.mark.parametrize("table", ["prediction", "label"])
@pytest.mark.parametrize("kind", ["payload", "cut", "time"])
def test_a_damaged_row_is_refused_by_its_offset_and_mended_from_the_inbox(
    log: FeatureLog, table: str, kind: str
) -> None:
    fill(log, 0, 9)
    drain(log)
    before = log.examples()
    position = 4 if table == "prediction" else 5
    statement = CHANGES[kind].format(table, "effective", "effective")
    change(database_of(log), statement, position)
    with pytest.raises(DamagedError, match=r"examples \[2, 3\) are damaged") as refused:
        log.examples()
    assert refused.value.places == (2,)
    assert log.examples(3, 9).equals(before[3:])
    assert mend(log.database, log.pipeline_id, log.inbox, [position]) == [position]
    assert log.examples().equals(before)


def test_an_example_that_names_another_prediction_is_found(log: FeatureLog) -> None:
    fill(log, 0, 5)
    drain(log)
    change(database_of(log), 'UPDATE example SET prediction_position = 0 WHERE "offset" = ?', 3)
    with pytest.raises(DamagedError, match=r"\[3, 4\)"):
        log.examples()


def test_archived_examples_do_not_need_the_database_s(log: FeatureLog) -> None:
    fill(log, 0, 5)
    drain(log)
    log.collect()
    before = log.examples()
    change(database_of(log), CHANGES["payload"].format("prediction"), 4)
    assert log.examples().equals(before)


def test_quarantine_is_the_way_on_where_no_copy_is_left(log: FeatureLog, clock: SimulatedClock) -> None:
    fill(log, 0, 5)
    drain(log)
    before = log.examples()
    change(database_of(log), CHANGES["payload"].format("prediction"), 4)
    change(log.inbox.path, CHANGES["payload"].format("entry"), 5)
    assert mend(log.database, log.pipeline_id, log.inbox, [4]) == []
    with pytest.raises(DamagedError):
        log.collect()
    quarantine = Quarantine(log.pipeline_id, log.database, clock)
    quarantine.add([OffsetRange(2, 3)], by="a test", reason="it is damaged")
    expected = before.filter(before["offset"] != 2)
    assert log.examples().equals(expected)
    log.collect()
    assert log.examples().equals(expected)


def test_the_scrub_finds_mends_and_names_what_it_cannot_mend(log: FeatureLog) -> None:
    fill(log, 0, 9)
    drain(log)
    log.collect()
    before = log.examples()
    scrub = Scrub(log, rows=4)
    assert scrub.whole() is None
    change(database_of(log), CHANGES["payload"].format("prediction"), 4)
    change(log.inbox.path, CHANGES["cut"].format("entry"), 8)
    assert scrub.whole() is None  # each was mended from the other
    assert log.inbox.scan(0, 100).damaged == ()
    assert log.repository.rows.damaged(0, 18) == []
    change(database_of(log), CHANGES["payload"].format("prediction"), 4)
    change(log.inbox.path, CHANGES["payload"].format("entry"), 5)
    (file,) = Path(log.archive["examples"].address).glob("*.parquet")
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    found = None
    for _ in range(12):  # in steps, as the keeper takes them
        found = scrub.step()
    assert found is not None
    for words in ("toy.sqlite at the positions [5, 6)", "at the positions [4, 5)", "examples [2, 3)"):
        assert words in found.what
    assert file.name in found.what
    assert found.places == (2,)
    file.write_bytes(content)
    found = scrub.whole()
    assert found is not None
    assert file.name not in found.what
    assert log.examples().equals(before)  # from the archive


def test_rows_of_before_checksums_are_read_as_they_are(log: FeatureLog) -> None:
    fill(log, 0, 5)
    drain(log)
    before = log.examples()
    for table in ("prediction", "label", "example"):
        with closing(sqlite3.connect(database_of(log))) as connection, connection:
            connection.execute(f"UPDATE {table} SET checksum = NULL")
    assert log.examples().equals(before)


def test_an_inbox_of_before_checksums_is_given_them_for_what_comes(
    open_log: Opener, log: FeatureLog
) -> None:
    fill(log, 0, 3)
    log.inbox.close()
    with closing(sqlite3.connect(log.inbox.path)) as connection, connection:
        connection.execute("ALTER TABLE entry DROP COLUMN checksum")
    again = open_log()
    fill(again, 3, 6)
    change(again.inbox.path, CHANGES["payload"].format("entry"), 12)
    assert drain(again) == 5
