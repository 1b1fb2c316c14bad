"""A published file: each publication is another, none is met half, and what failed is loaded again."""

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from headwater.infra.store.published_file import Follower, PublishedFile, replacing
from headwater.spec.errors import DigestError, StorageError

Numbers = PublishedFile[list[int]]


@pytest.fixture
def file(tmp_path: Path) -> Numbers:
    return PublishedFile(tmp_path / "live" / "numbers.json", list[int], "publish it again")


class Time:
    """A clock that goes forward when it is told to."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def loads(follower: Follower, clock: Time, error: Exception | None, until_s: float) -> list[float]:
    """Ask ten times a second, as a worker does, and say after how long it loaded."""
    began_s, loaded = clock.now_s, []
    while clock.now_s < began_s + until_s:
        if follower.is_due():
            loaded.append(round(clock.now_s - began_s, 1))
            if error is not None:
                follower.failed(error)
        clock.now_s += 0.1
    return loaded


def test_before_the_first_publication_there_is_nothing(file: Numbers) -> None:
    assert file.read() is None
    assert file.publication() is None


def test_publications_within_one_tick_of_the_clock_are_told_apart(
    file: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_700_000_000_000_000_000)
    seen = set()
    for n in range(50):
        file.publish([n])
        assert file.read() == [n]
        seen.add(file.publication())
    assert len(seen) == 50
    assert len({one.modified_ns for one in seen if one is not None}) == 50  # inodes come again


def test_a_clock_that_goes_back_hides_no_publication(
    file: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.publish([1])
    first = file.publication()
    monkeypatch.setattr("time.time_ns", lambda: 1)
    file.publish([2])
    second = file.publication()
    assert first is not None
    assert second is not None
    assert second.modified_ns > first.modified_ns


def test_a_reader_never_meets_half_of_a_publication(file: Numbers) -> None:
    file.publish([0] * 10)
    ended = threading.Event()

    def publish() -> None:
        for n in range(300):
            file.publish([n] * (1 + n * 37 % 20_000))
        ended.set()

    writer = threading.Thread(target=publish)
    writer.start()
    met = 0
    while not ended.is_set():
        found = file.read()
        assert found
        assert found == found[:1] * len(found)
        met += 1
    writer.join()
    assert met


def test_a_writer_that_is_killed_leaves_what_was_there(file: Numbers) -> None:
    file.publish([1])
    script = """
import os, sys
from pathlib import Path
from headwater.infra.store.published_file import replacing
with replacing(Path(sys.argv[1])) as draft:
    draft.write_bytes(b"[2, ")
    os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-c", script, str(file.path)], check=False)
    assert ended.returncode == -9
    assert file.read() == [1]
    file.publish([3])
    assert file.read() == [3]


def test_a_block_that_fails_leaves_neither_a_draft_nor_another_file(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(b"before")

    def fail_within() -> None:
        with replacing(path) as draft:
            draft.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail_within()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"[1", b"", b"\0", b"null", b'["\xb1"]', b"\xff\xfe"])
def test_a_damaged_file_is_refused_with_the_way_on(file: Numbers, content: bytes) -> None:
    file.publish([1, 2])
    file.path.write_bytes(content)
    with pytest.raises(StorageError, match=r"numbers\.json cannot be read") as refused:
        file.read()
    assert refused.value.hint == "publish it again"


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o640)])
def test_a_private_file_is_its_owner_s_alone(tmp_path: Path, private: bool, mode: int) -> None:
    before = os.umask(0o027)
    try:
        file = PublishedFile(tmp_path / "keys", list[int], "", private=private)
        file.publish([1])
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == mode


def test_each_publication_is_loaded_once(file: Numbers) -> None:
    clock = Time()
    follower = Follower(file, clock)
    assert loads(follower, clock, None, 60) == [0.0]  # though there is nothing: somebody may care
    for n in range(3):
        file.publish([n])
        assert loads(follower, clock, None, 60) == [0.0]
    file.path.unlink()
    assert loads(follower, clock, None, 60) == [0.0]


@pytest.mark.parametrize(
    "error", [StorageError("torn"), OSError(28, "No space left on device"), MemoryError()]
)
def test_what_fails_for_a_passing_reason_is_loaded_again_later_each_time(
    file: Numbers, error: Exception
) -> None:
    clock = Time()
    follower = Follower(file, clock)
    tries = loads(follower, clock, error, 200)
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert waits == pytest.approx([0.3, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30], abs=0.11)
    assert len(loads(follower, clock, None, 200)) == 1  # once more, and then it is well
    file.publish([1])
    assert loads(follower, clock, error, 1)[:2] == pytest.approx([0, 0.3], abs=0.11)


def test_what_cannot_be_loaded_waits_for_another_publication(file: Numbers) -> None:
    clock = Time()
    follower = Follower(file, clock)
    file.publish([1])
    assert loads(follower, clock, DigestError("another answer"), 200) == [0.0]
    file.publish([2])
    assert loads(follower, clock, DigestError("another answer"), 200) == [0.0]


def test_a_failure_is_news_once_for_each_publication(file: Numbers) -> None:
    follower = Follower(file)
    say: Callable[[str], bool] = lambda what: follower.failed(StorageError(what))  # noqa: E731
    file.publish([1])
    assert follower.is_due()
    assert [say("torn"), say("torn"), say("away"), say("torn")] == [True, False, True, False]
    file.publish([2])
    assert follower.is_due()
    assert [say("torn"), say("torn")] == [True, False]
