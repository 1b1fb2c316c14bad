"""Whenever a process is killed, the next one goes on: nothing lost, nothing twice, no half champion."""

import random
import signal
import time
from collections import Counter
from typing import NamedTuple

from benchmarks.claim import Outcome, at_least, fresh_home, mlflow_database, say
from benchmarks.faults.crashing import LOG, TRAIN, Task, phase_of, work
from benchmarks.imported import context
from headwater.infra.commit_points import COMMIT_POINTS
from headwater.infra.settings import Settings

__all__ = ["measure"]

_HITS = 5
_MOMENTS, _TRAIN_MOMENTS = 200, 50
_LONGEST_S = {LOG: 0.8, TRAIN: 2.5}
_TURNS = {LOG: 6, TRAIN: 2}  # how often a point may be passed by before it kills
_PATIENCE_S = 600.0
_TRIES = 3
_IN_TRAIN = ("decide", "claim", "train", "register", "promote", "end")
_SHORT_POINTS = ("record.after_sync", "collect.after_append", "promote.after_swap", "claim.after_commit")


class _End(NamedTuple):
    """How a worker ended: killed or not, while doing what, and what it found wrong at its start."""

    killed: bool
    phase: str
    wrong: list[str]


def measure(*, short: bool) -> Outcome:
    """Kill real processes at every commit point and at random moments, on one log (fifteen minutes).

    Workers are forked, record, label, sequence, collect, and decide, update and promote where they are
    asked to.
    Each begins by checking what the one before left, against what that one had acknowledged; the last
    one is not killed. ``ratio`` is the share of starts at which nothing was wrong.
    """
    with fresh_home(mlflow_database()) as settings:
        points = _kill_at_points(settings, short=short)
        moments = _kill_at_moments(settings, short=short)
        last = _run(settings, TRAIN)
    ends = [end for found in (*points.values(), moments) for end in found] + [last]
    wrong = [text for end in ends for text in end.wrong]
    hits = {point: sum(end.killed for end in found) for point, found in points.items()}
    enough = min(hits.values()) >= _HITS and sum(end.killed for end in moments) >= _MOMENTS
    return at_least(
        1.0 - sum(bool(end.wrong) for end in ends) / len(ends),
        1.0,
        also=enough and not last.killed,
        hits=hits,
        moments=dict(Counter(end.phase for end in moments if end.killed)),
        starts_checked=len(ends),
        wrong=wrong[:10],
    )


def _kill_at_points(settings: Settings, *, short: bool) -> dict[str, list[_End]]:
    drawn = random.Random(1)
    found: dict[str, list[_End]] = {}
    for point in _SHORT_POINTS if short else COMMIT_POINTS:
        task = TRAIN if point.startswith(_IN_TRAIN) else LOG
        ends = found[point] = []
        wanted = 1 if short else _HITS
        for _ in range(wanted * _TRIES):
            if sum(end.killed for end in ends) < wanted:
                ends.append(_run(settings, task, kill_at=f"{point}:{drawn.randint(1, _TURNS[task])}"))
        say(f"  {point}: {sum(end.killed for end in ends)} hits")
    return found


def _kill_at_moments(settings: Settings, *, short: bool) -> list[_End]:
    drawn = random.Random(2)
    training = 1 if short else _TRAIN_MOMENTS
    tasks = [TRAIN] * training + [LOG] * (2 if short else _MOMENTS - training)
    drawn.shuffle(tasks)
    found: list[_End] = []
    for task in tasks:
        found.append(_run(settings, task, kill_after_s=drawn.uniform(0, _LONGEST_S[task])))
        if len(found) % 25 == 0:
            say(f"  {len(found)} random moments")
    return found


def _run(
    settings: Settings, task: Task, *, kill_at: str = "", kill_after_s: float | None = None
) -> _End:
    """Let a worker check and work, and kill it, or let it kill itself."""
    receiving, sending = context().Pipe(duplex=False)
    process = context().Process(
        target=work, args=(str(settings.root), task, kill_at, kill_after_s is None, sending)
    )
    process.start()
    sending.close()
    try:
        wrong: list[str] = receiving.recv()
    except EOFError:
        wrong = ["a worker ended before it had checked"]
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        process.kill()
    process.join(_PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        wrong = [*wrong, f"a worker hung while it did {phase_of(settings)}"]
    elif process.exitcode not in (0, -signal.SIGKILL):
        wrong = [*wrong, f"a worker ended with {process.exitcode} in {phase_of(settings)}"]
    for text in wrong:
        say(f"  WRONG: {text}")
    return _End(process.exitcode == -signal.SIGKILL, phase_of(settings), wrong)
