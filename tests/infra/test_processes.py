import os
import resource
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from tests.patience import PATIENCE_S

from headwater.infra.processes import PARENT, Child, Mark, allow_files, end_marked, fetch, free_port
from headwater.spec.errors import ServerError

FAMILY = """
import subprocess, sys, time
own = len(sys.argv) > 1
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=own)
print(child.pid, flush=True)
time.sleep(600)
"""


def _child(tmp_path, code, *more, variables=None):
    command = [sys.executable, "-c", code, *more]
    return Child("toy server", command, {**os.environ, **(variables or {})}, tmp_path / "toy.log")


def _grandchild(child):
    child.await_answer(lambda: child.log.read_text().strip().isdecimal(), PATIENCE_S)
    return psutil.Process(int(child.log.read_text()))


def test_a_taken_port_is_named_with_the_next_step():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is taken") as raised:
            free_port(port, "--mlflow-port")
    assert "--mlflow-port 0" in raised.value.hint


def test_a_free_port_is_returned():
    port = free_port(0, "")
    assert free_port(port, "") == port
    assert fetch(port, "/") is None


def test_a_returned_port_lies_below_those_that_the_system_hands_out():
    given = {free_port(0, "") for _ in range(20)}
    assert len(given) > 1
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        assert other.getsockname()[1] not in range(min(given), max(given) + 1)


def test_a_server_that_ends_shows_the_end_of_its_log(tmp_path):
    child = _child(tmp_path, "import sys; print('no such table: flow'); sys.exit(3)")
    with pytest.raises(ServerError, match="toy server ended with status 3") as raised:
        child.await_answer(lambda: False, PATIENCE_S)
    assert "no such table: flow" in raised.value.what
    assert str(child.log) in raised.value.hint


def test_a_server_that_does_not_answer_has_a_limit(tmp_path):
    child = _child(tmp_path, "import time; print('thinking', flush=True); time.sleep(600)")
    try:
        child.await_answer(child.log.read_bytes, PATIENCE_S)
        with pytest.raises(ServerError, match="does not answer") as raised:
            child.await_answer(lambda: False, 0.1)
        assert "thinking" in raised.value.what
    finally:
        child.end()


def test_the_whole_group_ends(tmp_path):
    child = _child(tmp_path, FAMILY)
    grandchild = _grandchild(child)
    child.end()
    psutil.wait_procs([grandchild], timeout=PATIENCE_S)
    assert not grandchild.is_running()


def test_a_process_that_left_the_group_is_found_by_its_mark(tmp_path):
    owner = Mark(pid=os.getpid(), started_at_s=12345.0)
    child = _child(tmp_path, FAMILY, "own", variables=owner.variables())
    grandchild = _grandchild(child)
    child.end()
    assert grandchild.is_running()
    other = Mark(pid=os.getpid(), started_at_s=12346.0)
    assert end_marked(other) == []
    assert end_marked(owner) == [grandchild.pid]
    assert not grandchild.is_running()


def test_a_mark_distinguishes_a_process_from_a_later_one_with_its_pid():
    mark = Mark.of(os.getpid())
    assert mark.lives()
    assert not Mark(pid=mark.pid, started_at_s=mark.started_at_s - 100).lives()
    assert not Mark(pid=2**22 + 1, started_at_s=0).lives()


def test_a_server_starts_again_without_what_it_left(tmp_path):
    child = _child(tmp_path, FAMILY)
    left = _grandchild(child)
    before = child.pid
    os.kill(before, signal.SIGKILL)
    while child.status is None:
        time.sleep(0.01)
    assert child.status == -9
    try:
        child.start_again()
        assert not left.is_running()
        assert child.pid != before
        child.await_answer(
            lambda: len(child.log.read_text().split()) == 2, PATIENCE_S
        )  # the log goes on
        assert child.status is None
    finally:
        child.end()


def test_a_process_may_open_more_files_and_never_fewer() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
        allow_files(400)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (400, hard)
        allow_files(350)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (400, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_whose_parent_is_gone_before_it_looks_ends() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    program = "from headwater.infra.processes import end_with_parent; end_with_parent()"
    orphan = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {PARENT: str(gone.pid)})
    assert orphan.wait(PATIENCE_S) == -signal.SIGTERM


def test_a_thread_of_a_module_does_not_hold_up_the_end_of_a_process() -> None:
    program = """
import atexit, sys, threading
from headwater.infra.processes import exit_despite_threads
if sys.argv[1] == "thread":
    threading.Thread(target=threading.Event().wait).start()
atexit.register(print, "done")
exit_despite_threads(3, 0.2)
sys.exit(3)
"""
    for word, said in (("thread", ""), ("none", "done\n")):
        command = [sys.executable, "-c", program, word]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert (ended.returncode, ended.stdout) == (3, said)
