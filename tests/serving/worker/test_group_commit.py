"""Group commit: acknowledged records are stored, and the log is copied beside the commits."""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.features.record.entries import PREDICTION, Entry
from headwater.features.record.inbox import Inbox
from headwater.serving.worker import group_commit
from headwater.serving.worker.group_commit import GroupCommit


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    inbox = Inbox(tmp_path / "toy.sqlite")
    yield inbox
    inbox.close()


def test_every_acknowledged_record_is_stored_once(inbox: Inbox) -> None:
    async def main() -> int:
        commit = GroupCommit(inbox, most_waiting=10_000)
        ended = await asyncio.gather(*(commit.append([[entry(n)]]) for n in range(500)))
        assert ended == [[1]] * 500
        await commit.close()
        return commit.syncs

    assert asyncio.run(main()) < 500
    assert [row[2] for row in inbox.read(0, 1_000)] == [f"p{n}" for n in range(500)]


def test_the_log_is_copied_into_the_file_before_a_commit_must_do_so(
    inbox: Inbox, tmp_path: Path
) -> None:
    """Sizes tell what was copied: a file that was copied beside a commit is whole only with its log."""

    async def main() -> None:
        commit = GroupCommit(inbox, most_waiting=10_000)
        while commit.syncs < 200:
            await commit.append([[entry(commit.syncs)]])
        await commit.close()

    empty = inbox.path.stat().st_size
    asyncio.run(main())
    log = tmp_path / "toy.sqlite-wal"
    assert log.stat().st_size < 4_000 * 16_384  # SQLite would not have copied it yet
    copied = inbox.path.stat().st_size
    inbox.copy_log()
    assert copied - empty >= (inbox.path.stat().st_size - empty) // 2 > 0
    assert in_file_alone(inbox.path, tmp_path) == 200


def test_copying_while_others_write_loses_nothing(inbox: Inbox, tmp_path: Path) -> None:
    other = Inbox(inbox.path)
    for n in range(300):
        (inbox if n % 2 else other).append([entry(n)], "record")
        if n % 3 == 0:
            inbox.copy_log()
    inbox.copy_log()
    assert in_file_alone(inbox.path, tmp_path) == 300
    assert [row[2] for row in other.read(0, 1_000)] == [f"p{n}" for n in range(300)]
    other.close()


def entry(n: int) -> Entry:
    return Entry(PREDICTION, f"p{n}", "", n, b'{"n":%d}' % n + b" " * 600)


def in_file_alone(path: Path, folder: Path) -> int:
    """Count the entries of the file without its write-ahead log."""
    alone = folder / "alone.sqlite"
    shutil.copy(path, alone)
    connection = sqlite3.connect(alone)
    ((count,),) = connection.execute("SELECT count(*) FROM entry").fetchall()
    connection.close()
    return int(count)


def test_a_write_that_takes_long_is_a_fault_while_it_does(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "_LONGEST_WRITE_S", 0.0)
    other = Inbox(inbox.path)

    async def main() -> None:
        commit = GroupCommit(inbox, most_waiting=10_000)
        assert commit.fault() is None
        with other.one_sync():
            waiting = asyncio.ensure_future(commit.append([[entry(1)]]))
            while (fault := commit.fault()) is None:
                await asyncio.sleep(0)
            assert "has taken no record for" in fault.what
        assert await waiting == [1]
        assert commit.fault() is None
        await commit.close()

    asyncio.run(main())
    other.close()
