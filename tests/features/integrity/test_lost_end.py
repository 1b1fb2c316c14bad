"""An inbox that lost its newest records, which were acknowledged: found, named, and gone on from."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.features.integrity.test_damaged_rows import fill
from tests.features.records import drain, seen

from headwater.features.integrity.inbox_mending import lost_positions, mend_inbox
from headwater.features.integrity.refill import refill
from headwater.features.integrity.scrub import Scrub
from headwater.features.log import FeatureLog
from headwater.features.record.inbox import Inbox
from headwater.infra.settings import Settings
from headwater.spec.errors import IntegrityError

Opener = Callable[..., FeatureLog]


def cut(log: FeatureLog, copy: Path) -> Path:
    """Leave the inbox as a machine does that halts, with half of its write-ahead log."""
    folder = log.inbox.path.parent
    with closing(sqlite3.connect(log.inbox.path)) as keeps_log:
        keeps_log.execute("SELECT count(*) FROM entry").fetchone()
        shutil.copytree(folder, copy)
    log.close()
    shutil.rmtree(folder)
    (copy / "toy.sqlite-shm").unlink(missing_ok=True)
    copy.rename(folder)
    ahead = log.inbox.path.with_name("toy.sqlite-wal")
    content = ahead.read_bytes()
    ahead.write_bytes(content[: len(content) // 2])
    return log.inbox.path


@pytest.mark.parametrize("sequenced", [0, 20, 40])
def test_what_a_cut_log_has_lost_is_refused_then_named_and_the_rest_goes_on(
    log: FeatureLog, open_log: Opener, settings: Settings, tmp_path: Path, sequenced: int
) -> None:
    for start in range(0, sequenced, 4):
        fill(log, start, start + 4)
    drain(log)
    for start in range(sequenced, 60, 4):
        fill(log, start, start + 4)
    acknowledged = log.inbox.end()
    path = cut(log, tmp_path / "copy")
    with pytest.raises(IntegrityError, match=f"had acknowledged records up to {acknowledged}"):
        open_log()
    with closing(Inbox(path)) as inbox:
        refill(log.database, log.pipeline_id, inbox)
        lost = inbox.pass_over_lost()
        assert lost.stop == acknowledged + 1
        assert not inbox.pass_over_lost()
    again = open_log()
    drain(again)
    ids = {id_ for id_, _ in seen(again)}
    assert {f"p{i}" for i in range(sequenced)} <= ids
    assert lost_positions(again.database, again.pipeline_id, again.inbox) == frozenset(lost)
    assert Scrub(again).whole() is None
    fill(again, 100, 110)
    assert drain(again) == 10
    assert Scrub(again).whole() is None
    assert again.inbox.end() == acknowledged + 20


def test_the_newest_entry_that_is_lost_stays_so_that_no_position_is_given_twice(
    log: FeatureLog, open_log: Opener
) -> None:
    fill(log, 0, 5)
    path, end = log.inbox.path, log.inbox.end()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE entry SET payload = x'7b7d' WHERE position = ?", (end,))
    drain(log)
    lost = lost_positions(log.database, log.pipeline_id, log.inbox)
    assert lost == {end}
    assert f"[{end}, {end + 1})" in str(Scrub(log).whole())
    assert mend_inbox(log.database, log.pipeline_id, log.inbox, [end], removes_lost=True) == [end]
    assert Scrub(log).whole() is None
    again = open_log()
    fill(again, 5, 8)
    assert drain(again) == 3
    assert mend_inbox(again.database, again.pipeline_id, again.inbox, [end], removes_lost=True) == []
    assert Scrub(again).whole() is None


def test_the_mark_of_another_inbox_or_a_torn_one_is_none(log: FeatureLog, open_log: Opener) -> None:
    fill(log, 0, 5)
    log.close()
    mark = log.inbox.path.with_suffix(".end")
    content = mark.read_bytes()
    for other in (content[:-1], content[:-8] + bytes(8), b"\0" * 36 + content[36:], b""):
        mark.write_bytes(other)
        open_log().close()
    fill(open_log(), 5, 6)
    assert len(mark.read_bytes()) == len(content)
