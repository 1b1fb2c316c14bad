"""Syncs counted against acknowledgements, as the kernel sees them: nothing is told too early."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.service.durability import await_load
from benchmarks.service.serving import loading, serving
from benchmarks.service.serving_toy import publish

__all__ = ["Counted", "counted", "measure"]

_ACKNOWLEDGED, _SHORT_ACKNOWLEDGED = 10_000, 200
_CONNECTIONS = 16
_CALLS = "fdatasync,fsync,write,writev,pwrite64,sendto,sendmsg"
_RECORD = re.compile(r"[rk]-\d{9}")


class Counted(NamedTuple):
    """What a trace of a worker shows.

    Parameters
    ----------
    acknowledged
        Predictions and labels that were answered with 200.
    early
        Those of them whose answer was written before a sync that began after their record was written
        had ended.
    syncs
        Syncs of the inbox that ended.
    """

    acknowledged: int
    early: int
    syncs: int


def measure(*, short: bool) -> Outcome:
    """Trace the system calls of a worker under load with strace, and compare their order.

    The trace begins before the load. Sixteen connections predict and label, each record under a name of
    its own, which is found again in what the worker writes to the inbox's log and to its sockets.
    ``ratio`` is the number of answers that were written before the sync of their record had ended.

    Raises
    ------
    PermissionError
        If this user may not trace processes.
    """
    wanted = _SHORT_ACKNOWLEDGED if short else _ACKNOWLEDGED
    if shutil.which("strace") is None:
        reason = "strace is not installed: apt-get install strace"
        return at_most(0.0, 0.0, also=False, not_measured=reason)
    with fresh_home(mlflow_database()) as settings:
        publish(settings)
        trace = settings.root / "trace"
        with (
            serving(settings, workers=1) as to,
            _traced(to.workers()[0].pid, trace),
            loading(to, _CONNECTIONS, retry=False) as load,
        ):
            await_load(to, load, 1, wanted)
            failed = load.end().failed
        say(f"  the trace has {trace.stat().st_size / 1e6:.0f} MB")
        with trace.open(errors="replace") as lines:
            found = counted(lines)
    return at_most(
        float(found.early),
        0.0,
        also=found.acknowledged >= wanted and failed == 0,
        acknowledged=found.acknowledged,
        syncs=found.syncs,
        acknowledged_a_sync=round(found.acknowledged / max(1, found.syncs), 2),
        failed=failed,
    )


def counted(lines: Iterable[str]) -> Counted:
    """Read a trace: the calls of all threads, in the order in which they began or ended.

    Records of which it shows no write are left out.
    """
    written: dict[str, int] = {}  # when each record was first written to the inbox's log
    begun: dict[str, int] = {}  # when each thread began the sync it is in
    synced = -1  # when the newest sync that has ended began
    acknowledged = early = syncs = 0
    for now, line in enumerate(lines):
        thread = line.split(maxsplit=1)[0]
        if "sync(" in line and "-wal>" in line:
            begun[thread] = now
        if "sync" in line and thread in begun and re.search(r"\) += 0", line):
            synced, syncs = max(synced, begun.pop(thread)), syncs + 1
        elif "write" in line and "-wal>" in line:
            for name in _RECORD.findall(line):
                written.setdefault(name, now)
        elif "<socket:" in line and (name := _told(line)) in written:
            acknowledged += 1
            early += written[name] >= synced
    return Counted(acknowledged, early, syncs)


def _told(line: str) -> str:
    """Give the name of the record that a line acknowledges, if it does."""
    found = _RECORD.search(line)
    if found is None:
        return ""
    return f"k{found[0][1:]}" if "prediction_id" in line else found[0]


@contextmanager
def _traced(pid: int, trace: Path) -> Iterator[None]:
    """Trace a process and its threads into a file until the block ends."""
    command = ["strace", "-f", "-y", "-ttt", "-s", "20000", "-e", f"trace={_CALLS}"]
    tracer = subprocess.Popen(
        [*command, "-o", str(trace), "-p", str(pid)], stderr=subprocess.PIPE, text=True
    )
    try:
        told = tracer.stderr.readline() if tracer.stderr else ""
        if "attached" not in told:
            raise PermissionError(f"strace cannot trace a worker here: {told.strip()}")
        yield
    finally:
        tracer.terminate()
        tracer.communicate()
