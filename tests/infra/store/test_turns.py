"""A waiting writer gets a file before the writer that has just had it."""

import fcntl
import multiprocessing
import os
import signal
import threading
from contextlib import closing
from multiprocessing.synchronize import Event
from pathlib import Path

from tests.patience import PATIENCE_S, await_

from headwater.features.record.entries import PREDICTION, Entry
from headwater.features.record.inbox import Inbox
from headwater.infra.store.turns import WriterQueue


def test_a_waiting_writer_is_next(tmp_path: Path) -> None:
    first, second = Inbox(tmp_path / "toy.sqlite"), Inbox(tmp_path / "toy.sqlite")
    with first.one_sync():
        first.append([_entry("a")], "record")
        waiting = threading.Thread(target=second.append, args=([_entry("b")], "record"))
        waiting.start()
        await_(lambda: _held(tmp_path / "toy.next"))
    first.append([_entry("c")], "record")  # at once, while the other one may still sleep
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()

    assert [id_ for _, _, id_, _, _ in first.read(0, 9)] == ["a", "b", "c"]
    first.close()
    second.close()


def test_a_killed_process_gives_its_turn_up(tmp_path: Path) -> None:
    path = tmp_path / "toy.sqlite"
    process = _holder(path)
    process.kill()
    process.join()

    with closing(WriterQueue(path)) as mine, mine:
        pass


def test_a_stopped_process_is_not_waited_for_without_end(tmp_path: Path) -> None:
    path = tmp_path / "toy.sqlite"
    process = _holder(path)
    os.kill(process.pid or 0, signal.SIGSTOP)

    with closing(WriterQueue(path, patience_s=0.01)) as mine:
        with mine:
            assert _held(path.with_suffix(".turn"))
        mine._patience_s = PATIENCE_S  # it has waited once, and does not again
        for _ in range(3):
            with mine:
                assert _held(path.with_suffix(".turn"))
        process.kill()
        process.join()
        with mine:
            pass
        assert mine._hopes


def _holder(path: Path) -> multiprocessing.process.BaseProcess:
    """Start a process that has its turn and does not end it."""
    spawn = multiprocessing.get_context("spawn")
    has = spawn.Event()
    process = spawn.Process(target=_hold, args=(path, has), daemon=True)
    process.start()
    assert has.wait(PATIENCE_S)
    return process


def _hold(path: Path, has: Event) -> None:
    with closing(WriterQueue(path)) as mine, mine:
        has.set()
        signal.pause()


def _held(path: Path) -> bool:
    """Return whether a process holds a lock."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _entry(id_: str) -> Entry:
    return Entry(PREDICTION, id_, "", 0, b"{}")
