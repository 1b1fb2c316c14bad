"""Twenty minutes under load with labels, swaps and kills: memory flat, counts equal, latency as before.

``python -m benchmarks.service.soak MINUTES`` runs it for another time.
"""

import itertools
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import httpx
import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.bad_models import HARM
from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.service import bad_pipelines
from benchmarks.service.durability import await_load
from benchmarks.service.serving import TOY, Load, Running, loading, serving, wrong_in_log
from benchmarks.service.serving_toy import pipeline, publish
from headwater.infra.offline import quiet
from headwater.loop.binding import Bound

__all__ = ["Sample", "growth", "look", "measure", "soak"]

_BOUND = 0.01
_MOST_SLOWER = 1.2
_LENGTH_S, _SHORT_LENGTH_S = 1_200.0, 4.0
_FULL_S, _SHORT_FULL_S = 20.0, 1.0
_CONNECTIONS = 64
_WORKERS = 2
_WARM_S = 120.0
_KILL_EVERY_S = 150.0
_SWAP_EVERY_S = 30.0
_SAMPLE_EVERY_S = 2.0
_KILL_S = 10.0
_LOOK_S = 0.05
_FIRST = 100_000_000  # the load that saturates has those below

Numbers = npt.NDArray[np.float64]


class Sample(NamedTuple):
    """A process of the service at one moment.

    Parameters
    ----------
    role
        Workers share one; every other process has its own.
    pid, age_s, resident_bytes
        Which process, how old it is, and what it holds in memory.
    """

    role: str
    pid: int
    age_s: float
    resident_bytes: int


def measure(*, short: bool) -> Outcome:
    """Load the service at two thirds of what it can do, and kill, swap, and look meanwhile.

    See :func:`soak`.
    """
    if short:
        return soak(_SHORT_LENGTH_S, _SHORT_FULL_S)
    return soak(_LENGTH_S, _FULL_S)


def soak(length_s: float, full_s: float = _FULL_S) -> Outcome:
    """Run the soak.

    Sixty-four connections of another process predict, and label what they have predicted. First as
    fast as two workers answer, to find the saturating load; then at two thirds of it. In every 150
    seconds one worker is killed with SIGKILL, at a moment drawn from the middle of them; every half
    minute the other one of two versions is promoted. Beside it a second pipeline of the same service is
    asked for harm of every kind (:data:`benchmarks.bad_models.HARM`), one request after the other.

    ``ratio`` is by how much the resident memory of all processes but that pipeline's own would grow in
    ten minutes, as a share, see :func:`growth`. Also, each acknowledged prediction and label must be in
    the log once, and the 99th percentile of the last quarter (five minutes) within 1.2 of the first
    quarter's, without the requests that were due within ten seconds of a kill. A latency counts from
    when a request was due, through kills and repetitions. A kill holds up half of the requests for a
    second or two, two kills about one in a hundred of a quarter: with those requests the 99th percentile
    lay now before and now behind that edge (368, 72, 1071 and 796 ms in one run), and told of kills
    alone. How long each kill held requests up is given besides.

    Parameters
    ----------
    length_s, full_s
        How long, and how long saturated before, in seconds.
    """
    with fresh_home(mlflow_database()) as settings:
        publish(settings)
        bad_pipelines.publish(settings, [bad_pipelines.first])
        with Bound(pipeline, settings) as bound:
            begun = bound.log.stop()
            references = [TOY, bad_pipelines.REFERENCES[0]]
            with serving(settings, _WORKERS, references) as to, _harm(to) as harmed:
                rate = _saturating(to, full_s) * 2 / 3
                say(f"  {rate:.0f} predictions a second, each with its label")
                with loading(to, _CONNECTIONS, retry=True, rate=rate, first=_FIRST) as load:
                    samples, kills_s, swaps = _disturb(bound, to, load, length_s)
                    found = load.end()
            say(f"  counting {len(found.acknowledged):,} predictions")
            missing = wrong_in_log(bound, begun, found)
    due_s, took_ms = np.array(found.due_s), np.array(found.latencies_ms)
    beside = np.ones(due_s.shape, dtype=bool)
    for kill_s in kills_s:
        beside &= (due_s < kill_s - 1) | (due_s >= kill_s + _KILL_S)
    p99_ms, p90_ms = (
        [
            _percentile(due_s[beside], took_ms[beside], percent, length_s * part / 4, length_s / 4)
            for part in range(4)
        ]
        for percent in (99, 90)
    )
    held_up_s = [_longest_s(due_s, took_ms, kill_s) for kill_s in kills_s]
    first_ms, last_ms = p99_ms[0], p99_ms[-1]
    resident = [sum(one.resident_bytes for one in tick) / 1e6 for tick in samples]
    return at_most(
        growth([one for tick in samples for one in tick], len(samples), min(_WARM_S, length_s / 4)),
        _BOUND,
        also=missing == 0 and last_ms <= _MOST_SLOWER * first_ms,
        held_up_s_by_kill=held_up_s,
        p99_ms_by_quarter=[round(one, 1) for one in p99_ms],
        p90_ms_by_quarter=[round(one, 1) for one in p90_ms],
        p99_last_over_first=round(last_ms / first_ms, 3),
        median_ms=round(statistics.median(found.latencies_ms), 1),
        wrong=missing,
        harmed=dict(harmed),
        acknowledged=len(found.acknowledged),
        labelled=len(found.labelled),
        sent_again=found.failed,
        kills=len(kills_s),
        swaps=swaps,
        rate=round(rate),
        resident_mb=round(statistics.median(resident)),
        minutes=round(length_s / 60, 1),
    )


def growth(samples: Sequence[Sample], looks: int, warm_s: float = _WARM_S) -> float:
    """Give the growth of all resident memory in ten minutes, as a share of it.

    A killed worker's successor begins small, so that a sum over processes would hide what a worker
    leaks. So growth is with the age of each process: a line through what it held once it was warm, of
    one slope for all workers that ever were, and a level for each of them. Slopes and levels are added
    up, each as often as such a process was there. A worker is warm when its inbox's cache of 32 MB is
    full, which forty thousand records do.

    Parameters
    ----------
    samples
        Of every process, at every look.
    looks
        How many looks there were.
    warm_s
        How old a process must be to count, in seconds; two minutes, or a quarter of a shorter soak.
    """
    slope = level = 0.0
    for role in sorted({one.role for one in samples}):
        there = sum(one.role == role for one in samples) / looks
        warm = [one for one in samples if one.role == role and one.age_s >= warm_s]
        if not warm:
            continue
        level += there * statistics.fmean(one.resident_bytes for one in warm)
        slope += there * _slope(warm)
    return slope * 600 / level if level else 0.0


def _slope(samples: Sequence[Sample]) -> float:
    """Give bytes a second, by least squares with a level for each process."""
    product = square = 0.0
    for pid in {one.pid for one in samples}:
        mine = [one for one in samples if one.pid == pid]
        age = np.array([one.age_s for one in mine])
        held = np.array([one.resident_bytes for one in mine], dtype=np.float64)
        product += float(((age - age.mean()) * (held - held.mean())).sum())
        square += float(((age - age.mean()) ** 2).sum())
    return product / square if square else 0.0


def _saturating(to: Running, full_s: float) -> float:
    """Give how many predictions, each with its label, are answered in a second."""
    with loading(to, _CONNECTIONS, retry=True) as load:
        await_load(to, load, 1, 2 * _CONNECTIONS)
        time.sleep(full_s / 4)
        before, started_s = load.acknowledged, time.monotonic()
        time.sleep(full_s)
        rate = (load.acknowledged - before) / (time.monotonic() - started_s) / 2
        load.end()
    return rate


def _disturb(
    bound: Bound, to: Running, load: Load, length_s: float
) -> tuple[list[list[Sample]], list[float], int]:
    """Kill, promote and look until the time is over; give what was seen, when, and how often."""
    drawn, began_s = random.Random(8), time.monotonic()
    kills_at = list(_moments(drawn, length_s, _KILL_EVERY_S))
    swaps_at = list(_moments(drawn, length_s, _SWAP_EVERY_S))
    samples: list[list[Sample]] = []
    kills_s, swaps = list[float](), 0
    while (now_s := time.monotonic() - began_s) < length_s:
        if len(kills_s) < len(kills_at) and now_s >= kills_at[len(kills_s)]:
            await_load(to, load, _WORKERS)
            kills_s.append(time.monotonic() - began_s)
            drawn.choice(to.answering()).kill()
        if swaps < len(swaps_at) and now_s >= swaps_at[swaps]:
            bound.registry.promote("12"[swaps % 2], by="benchmark", reason="a swap")
            swaps += 1
        if now_s >= len(samples) * _SAMPLE_EVERY_S:
            samples.append(look(to))
        time.sleep(_LOOK_S)
    return samples, kills_s, swaps


@contextmanager
def _harm(to: Running) -> Iterator[Counter[str]]:
    """Ask another pipeline for harm until the block ends; count the requests by kind and status."""
    ends, counts = threading.Event(), Counter[str]()

    def ask() -> None:
        kinds = itertools.cycle(enumerate(HARM, 1))
        while not ends.is_set():
            act, kind = next(kinds)
            body = {"pipeline": "first", "features": {"act": float(act), "a": 1.0}}
            status = "lost"
            with suppress(httpx.TransportError):
                status = str(httpx.post(f"{to.address}/predict", json=body, timeout=60).status_code)
            counts[f"{kind}: {status}"] += 1
            ends.wait(_LOOK_S)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield counts
    finally:
        ends.set()
        thread.join()


def _moments(drawn: random.Random, length_s: float, every_s: float) -> Iterator[float]:
    """Draw a moment from the middle three fifths of each stretch; one stretch at the least."""
    stretches = max(1, round(length_s / every_s))
    for number in range(stretches):
        yield (number + drawn.uniform(0.2, 0.8)) * length_s / stretches


def look(to: Running) -> list[Sample]:
    """Give what each process of the service holds now, but for those of models at fault."""
    workers = {one.pid for one in to.workers()}
    found, now = [], time.time()
    for one in (to.process, *to.process.children(recursive=True)):
        with suppress(psutil.Error):  # it may just have ended
            if "headwater.serving.isolation.model_process" in one.cmdline():
                continue
            role = "worker" if one.pid in workers else str(one.pid)
            resident = one.memory_info().rss
            found.append(Sample(role, one.pid, now - one.create_time(), resident))
    return found


def _percentile(due_s: Numbers, took_ms: Numbers, percent: int, from_s: float, length_s: float) -> float:
    there = took_ms[(due_s >= from_s) & (due_s < from_s + length_s)]
    return float(np.percentile(there, percent)) if there.size else float("inf")


def _longest_s(due_s: Numbers, took_ms: Numbers, kill_s: float) -> float:
    """Give how long the request waited that a kill held up longest."""
    there = took_ms[(due_s >= kill_s - 1) & (due_s < kill_s + _KILL_S)]
    return round(float(there.max()) / 1_000, 2) if there.size else 0.0


if __name__ == "__main__":
    quiet()
    print(soak(float(sys.argv[1]) * 60).line("soak", short=False))
