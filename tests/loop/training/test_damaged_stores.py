"""Damage of a whole home, as `headwater doctor --repair` finds and mends it."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from deltalake import DeltaTable
from tests.loop.conftest import Binder, day

from headwater.infra.store.audit import audited
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.damage import check_damage
from headwater.loop.doctor import CheckResult
from headwater.loop.training.update import train
from headwater.spec.errors import DamagedError
from headwater.spec.recipe import OffsetRange

Outsider = Callable[[Path], object]


@pytest.fixture
def line(bind: Binder) -> Bound:
    bound = bind()
    for _ in range(3):
        day(bound, 20)
    return bound


def check(bound: Bound, *, repair: bool = False) -> list[CheckResult]:
    return check_damage(bound.settings, by="a test", repair=repair)


def cut_log(table: Path) -> None:
    commit = table / "_delta_log" / f"{1:020}.json"
    commit.write_bytes(commit.read_bytes()[:300])


def lose_log(table: Path) -> None:
    (table / "_delta_log" / f"{1:020}.json").unlink()


def cut_file(table: Path) -> None:
    path = next(table.glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])


def flip_file(table: Path) -> None:
    path = next(table.glob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def lose_files(table: Path) -> None:
    for path in table.glob("*.parquet"):
        path.unlink()


def delete_rows(table: Path) -> None:
    DeltaTable(str(table)).delete("offset >= 10 and offset < 30")


DAMAGES: list[Outsider] = [cut_log, lose_log, cut_file, flip_file, lose_files, delete_rows]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
def test_a_damaged_table_costs_nothing_and_is_written_anew(
    line: Bound, bind: Binder, damage: Outsider
) -> None:
    before = line.log.examples()
    damage(Path(line.log.archive["examples"].address))
    again = bind(line.clock)
    assert again.log.examples().equals(before)  # from the database
    assert train(again).version is not None
    (said, *_) = check(again, repair=True)
    assert (said.good, "written anew" in said.found) == (True, True)
    assert [one.found for one in check(again)] == ["none"]
    after = bind(line.clock)
    day(after, 5)
    schema = after.log.frames.schema(("label",))
    assert after.log.archive["examples"].read(OffsetRange(0, 65), schema).height == 65
    assert after.log.examples(0, 60).equals(before)
    assert [one.action for one in audited(after.database, 9) if one.by == "a test"] == ["repair"]


def compact(table: Path) -> None:
    DeltaTable(str(table)).optimize.compact()


def vacuum(table: Path) -> None:
    compact(table)
    DeltaTable(str(table)).vacuum(0, dry_run=False, enforce_retention_duration=False)


@pytest.mark.parametrize("outsider", [compact, vacuum], ids=lambda one: one.__name__)
def test_an_outsider_s_compaction_and_vacuum_change_nothing(
    line: Bound, bind: Binder, outsider: Outsider
) -> None:
    before = line.log.examples()
    outsider(Path(line.log.archive["examples"].address))
    assert line.log.examples().equals(before)
    assert bind(line.clock).log.examples().equals(before)
    day(line, 5)
    assert line.log.examples(0, 60).equals(before)
    assert [one.found for one in check(line, repair=True)] == ["none"]


def spoil(bound: Bound, offset: int) -> None:
    """Damage the prediction of an example in the database and in the inbox."""
    payload = "UPDATE {} SET payload = replace(payload, '0', '1') WHERE position = ?"
    database, inbox = str(bound.database.engine.url.database), str(bound.log.inbox.path)
    with closing(sqlite3.connect(database)) as connection, connection:
        query = "SELECT prediction_position, id FROM example JOIN prediction ON position = "
        query += 'prediction_position WHERE "offset" = ?'
        position, id_ = connection.execute(query, (offset,)).fetchone()
        connection.execute(payload.format("prediction"), (position,))
    with closing(sqlite3.connect(inbox)) as connection, connection:
        query = "SELECT position FROM entry WHERE id = ? AND kind = 0"
        (position,) = connection.execute(query, (id_,)).fetchone()
        connection.execute(payload.format("entry"), (position,))


def test_training_over_what_no_store_has_is_refused_by_offset_until_it_is_quarantined(
    line: Bound, bind: Binder
) -> None:
    day(line, 20, collected=False)
    with line.log.sequencer() as sequencer:
        sequencer.drain()
    spoil(line, 65)  # it was not archived
    again = bind(line.clock)
    with pytest.raises(DamagedError, match=r"examples \[65, 66\) are damaged"):
        train(again)
    (said,) = check(again, repair=True)
    assert (said.good, "[65, 66)" in said.found) == (False, True)
    again.registry.quarantine.add([OffsetRange(65, 66)], by="a test", reason="damaged")
    trained = train(again)
    assert trained.version is not None
    assert trained.version.learned == 79
    assert collect(again.log).archived == 20


def test_a_table_that_is_the_only_whole_copy_is_not_removed(line: Bound, bind: Binder) -> None:
    before = line.log.examples()
    spoil(line, 5)
    table = Path(line.log.archive["examples"].address)
    newest = max(table.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-9])  # another part of the table is damaged, too
    again = bind(line.clock)
    (said,) = check(again, repair=True)
    assert (said.good, "[5, 6)" in said.found) == (False, True)
    assert again.log.examples(0, 20).equals(before[:20])  # from the archive, which stays
