"""Stores that were cut, emptied or overwritten are refused by name, and mended by a copy."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from tests.features.records import drain, label, prediction

from headwater.features.log import FeatureLog
from headwater.infra.settings import Settings
from headwater.spec.errors import HeadwaterError, StorageError, TableError
from headwater.spec.recipe import OffsetRange

Opener = Callable[..., FeatureLog]
Damage = Callable[[bytes], bytes]


def fill(log: FeatureLog, start: int, stop: int) -> None:
    log.record([prediction(str(i), x=float(i)) for i in range(start, stop)])
    log.label([label(str(i), i % 3 == 0) for i in range(start, stop)])
    drain(log)
    log.collect()


def file_of(log: FeatureLog, turn: int) -> Path:
    """The one data file that the `turn`-th collect wrote."""
    folder = Path(log.archive["examples"].address)
    entries = (folder / "_delta_log" / f"{turn:020}.json").read_text().splitlines()
    (path,) = [entry["add"]["path"] for entry in map(json.loads, entries) if "add" in entry]
    return folder / path


def archived(log: FeatureLog, start: int, stop: int) -> pl.DataFrame:
    """Read from the archive alone."""
    schema = log.frames.schema(("prediction_id", "label"))
    return log.archive["examples"].read(OffsetRange(start, stop), schema)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:0],
        lambda content: content[:100],
        lambda content: content[:-1],
        lambda content: content[:-8] + b"\0" * 8,
        lambda content: b"\0" * len(content),
    ],
    ids=["empty", "cut", "a byte short", "no footer", "zeros"],
)
def test_a_damaged_file_is_refused_and_read_from_the_database(log: FeatureLog, damage: Damage) -> None:
    for start in (0, 10, 20):
        fill(log, start, start + 10)
    before = log.examples()
    path = file_of(log, 1)
    content = path.read_bytes()
    path.write_bytes(damage(content))
    for start, stop in ((0, 30), (10, 20), (9, 11), (19, 25)):
        with pytest.raises(TableError) as refused:
            archived(log, start, stop)
        assert "'examples'" in refused.value.what
        assert str(path) in refused.value.what
        assert log.examples(start, stop).equals(before[start:stop])
    assert archived(log, 0, 10)["label"].equals(before["label"][0:10])
    assert archived(log, 20, 30)["label"].equals(before["label"][20:30])
    path.write_bytes(content)
    assert archived(log, 0, 30)["label"].equals(before["label"])


def test_a_byte_that_reads_as_another_value_is_found_by_its_seal(
    log: FeatureLog, open_log: Opener
) -> None:
    fill(log, 0, 10)
    before = log.examples()
    path = file_of(log, 0)
    content = path.read_bytes()
    again = open_log()  # as another process begins: it has read no file yet
    path.write_bytes(flipped(content))
    with pytest.raises(TableError, match="is damaged") as refused:
        archived(again, 0, 10)
    assert f"{path}, which holds [0, 10)" in refused.value.what
    assert again.examples().equals(before)


def flipped(content: bytes) -> bytes:
    """Change one bit in the middle."""
    changed = bytearray(content)
    changed[len(changed) // 3] ^= 1
    return bytes(changed)


def test_a_damaged_commit_is_refused_and_nothing_is_added(log: FeatureLog) -> None:
    fill(log, 0, 10)
    commit = Path(log.archive["examples"].address) / "_delta_log" / f"{0:020}.json"
    content = commit.read_bytes()
    commit.write_bytes(content[: len(content) // 2])
    again = FeatureLog(log.pipeline, Settings(home=log.inbox.path.parents[1]), log.clock, log.database)
    assert again.examples(0, 10).height == 10  # from the database
    with pytest.raises(HeadwaterError):
        fill(again, 10, 12)
    commit.write_bytes(content)
    assert again.collect() == 2
    assert again.examples()["prediction_id"].to_list() == [str(i) for i in range(12)]
    again.close()


def test_a_folder_that_cannot_be_made_is_a_storage_error_and_loses_nothing(
    open_log: Opener, tmp_path: Path
) -> None:
    (tmp_path / "tables").touch()
    log = open_log(Settings(home=tmp_path / "home", storage=str(tmp_path / "tables")))
    log.record([prediction("a")])
    log.label([label("a")])
    assert drain(log) == 1
    with pytest.raises(StorageError, match="tables"):
        log.collect()
    (tmp_path / "tables").unlink()
    assert log.collect() == 1


@pytest.mark.parametrize("content", [b"no inbox at all" * 100, b"SQLite format 3\0" + b"\xff" * 4_000])
def test_a_file_that_is_no_inbox_is_refused_and_left(
    open_log: Opener, settings: Settings, content: bytes
) -> None:
    path = settings.root / "inbox" / "toy.sqlite"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"toy\.sqlite"):
        open_log()
    assert path.read_bytes() == content
