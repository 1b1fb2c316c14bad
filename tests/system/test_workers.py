"""Workers of the service that end or stand still are replaced, whatever they were just asked."""

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx
import psutil
import pytest
from tests.patience import PATIENCE_S, await_
from uvicorn import Config

from headwater.serving.process.server import Workers

pytestmark = pytest.mark.system


@contextmanager
def working(factory: str) -> Iterator[tuple[Workers, str]]:
    """Begin one worker of an application; yield it with its address."""
    handlers = {sign: signal.getsignal(sign) for sign in signal.Signals}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        config = Config(
            f"tests.system.odd_app:{factory}",
            factory=True,
            timeout_worker_healthcheck=100_000,
            log_level="critical",
        )
        found = Workers(config, [listening])
        found.init_processes()
        try:
            yield found, f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            for process in found.processes:
                process.kill()
            found.join_all()
            for sign, handler in handlers.items():
                if handler is not None and signal.getsignal(sign) != handler:
                    signal.signal(sign, handler)


def pid_of(address: str) -> int:
    return int(httpx.get(f"{address}/pid", timeout=PATIENCE_S).text)


def replaced(workers: Workers, pid: int) -> bool:
    workers.keep_subprocess_alive()
    return workers.processes[0].pid != pid


@pytest.mark.parametrize("way", ["/end", "killed"])
def test_a_worker_that_ends_is_replaced_whatever_its_status(way: str) -> None:
    with working("odd") as (workers, address):
        pid = pid_of(address)
        await_(lambda: workers.processes[0].has_served)
        if way == "killed":
            psutil.Process(pid).kill()
        else:
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{address}{way}", timeout=PATIENCE_S)
        await_(lambda: replaced(workers, pid))
        assert pid_of(address) == workers.processes[0].pid
        assert not workers.failed
        assert not workers.should_exit.is_set()


def test_a_worker_whose_loop_stands_still_is_replaced() -> None:
    with working("odd") as (workers, address):
        pid = pid_of(address)
        await_(lambda: workers.processes[0].has_served)
        workers.keep_subprocess_alive()
        assert workers.processes[0].pid == pid
        with ThreadPoolExecutor(1) as pool:
            stands = pool.submit(httpx.get, f"{address}/stand", timeout=PATIENCE_S)
            workers.longest_stall_s = 2.0
            await_(lambda: replaced(workers, pid))
            assert isinstance(stands.exception(PATIENCE_S), httpx.TransportError)
        workers.longest_stall_s = PATIENCE_S
        assert pid_of(address) == workers.processes[0].pid


def test_a_worker_without_a_free_file_is_replaced() -> None:
    with working("odd") as (workers, address):
        pid = pid_of(address)
        await_(lambda: workers.processes[0].has_served)
        with suppress(httpx.TransportError):
            httpx.get(f"{address}/leak", timeout=PATIENCE_S)
        workers.longest_stall_s = 2.0
        await_(lambda: replaced(workers, pid))
        workers.longest_stall_s = PATIENCE_S
        assert pid_of(address) == workers.processes[0].pid


def test_a_worker_that_ignores_signals_is_killed_in_the_end() -> None:
    with working("odd") as (workers, address):
        process = workers.processes[0]
        httpx.get(f"{address}/deaf", timeout=PATIENCE_S)
        process.longest_end_s = 1.0
        process.terminate()
        process.join()
        assert process.exitcode == -signal.SIGKILL


def test_what_sighup_begins_is_watched_too() -> None:
    with working("odd") as (workers, address):
        pid_of(address)
        workers.config.timeout_worker_healthcheck = int(PATIENCE_S)
        workers.restart_all()
        pid = pid_of(address)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address}/end", timeout=PATIENCE_S)
        await_(lambda: replaced(workers, pid))
        await_(lambda: workers.processes[0].has_served)


def test_a_pause_of_worker_and_parent_is_no_stall() -> None:
    with working("odd") as (workers, address):
        pid, process = pid_of(address), workers.processes[0]
        await_(lambda: process.has_served)
        psutil.Process(pid).suspend()
        process.stands_still(30.0, 0.0)
        assert not process.stands_still(30.0, 100_000.0)  # neither ran for a day
        seen = [process.stands_still(30.0, 100_000.0 + look) for look in range(1, 40)]
        assert seen.index(True) >= 28
        psutil.Process(pid).resume()
        await_(lambda: not process.stands_still(30.0, 200_000.0))


@pytest.mark.parametrize("factory", ["broken", "unloadable"])
def test_if_no_worker_starts_the_service_ends(factory: str) -> None:
    with working(factory) as (workers, _):
        await_(lambda: workers.keep_subprocess_alive() or workers.failed)
        assert workers.should_exit.is_set()
