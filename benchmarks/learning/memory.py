"""An update needs the memory of what is new, however long the log.

``python -m benchmarks.learning.memory --scale 0.1`` measures shorter logs, where ten million examples
take too much time or disk (about seven gigabytes).
"""

import argparse
import gc
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.imported import context
from benchmarks.learning.bulk import BULK, fill, moment
from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.offline import quiet
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.training.update import train

__all__ = ["measure"]

_BOUND = 1.2
_LONG, _NORMAL, _NEW = 10_000_000, 1_000_000, 50_000
_ROUNDS = 3
_SHORT_SCALE = 0.005


def measure(*, short: bool, scale: float = 1.0) -> Outcome:
    """Compare the peak memory of a stateful update on a log of 10 M and of 1 M (twenty minutes).

    The logs are written in bulk, see `benchmarks.learning.bulk`. Each update learns 50,000 new examples
    in a process of its own. Its peak is the kernel's high-water mark (VmHWM) above what it held after an
    update of another log with 100 examples, when all libraries had been imported; ``ru_maxrss`` would
    count the process that started it, too.
    """
    scale = _SHORT_SCALE if short else scale
    rounds = 1 if short else _ROUNDS
    new = 1_000 if short else _NEW
    peaks = {rows: _peaks(rows, new, rounds) for rows in (round(_NORMAL * scale), round(_LONG * scale))}
    normal, long = (median(found) for found in peaks.values())
    return at_most(
        long / normal,
        _BOUND,
        examples=list(peaks),
        new=new,
        peak_mb=[round(normal / 1e6, 1), round(long / 1e6, 1)],
        peaks_mb=[[round(peak / 1e6, 1) for peak in found] for found in peaks.values()],
    )


def _peaks(rows: int, new: int, rounds: int) -> list[int]:
    """Give the peaks of some updates, one after the other, on a log of that many examples."""
    with fresh_home(mlflow_database()) as settings:
        _lengthen(settings, rows)
        _train(settings, rows)
        found = []
        for stop in range(rows + new, rows + new * rounds + 1, new):
            _lengthen(settings, stop)
            found.append(_update_apart(settings, stop))
        say(f"  {rows:,} examples: peaks {found}")
    return found


def _lengthen(settings: Settings, stop: int) -> None:
    log = FeatureLog(BULK, settings, SimulatedClock(moment(stop)))
    fill(log, stop)
    log.close()
    log.database.close()


def _update_apart(settings: Settings, stop: int) -> int:
    """Update in a new process, and give its peak in bytes above its imports."""
    receiving, sending = context().Pipe(duplex=False)
    process = context().Process(
        target=_update, args=(str(settings.root), stop, mlflow_database(), sending)
    )
    process.start()
    sending.close()
    peak: int = receiving.recv()
    process.join()
    return peak


def _update(home: str, stop: int, mlflow: Path, answer: Connection) -> None:
    with fresh_home(mlflow) as other:  # whatever is imported or made on first use
        _lengthen(other, 100)
        _train(other, 100)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = _status("VmRSS")
    _train(Settings(home=Path(home)), stop)
    answer.send(_status("VmHWM") - before)


def _train(settings: Settings, stop: int) -> None:
    with Bound(BULK, settings, SimulatedClock(moment(stop))) as bound:
        made = train(bound, by="benchmark").version
        if made is None or made.examples.stop != stop:
            raise ValueError(f"an update on {stop} examples made {made}")


def _status(name: str) -> int:
    """Read one of the kernel's numbers about this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning.memory", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of both logs (1.0)")
    quiet()
    outcome = measure(short=False, scale=parser.parse_args().scale)
    print(outcome.line("memory", short=False))
    sys.exit(0 if outcome.holds else 1)
