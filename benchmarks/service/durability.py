"""Workers killed at random moments under load: what was acknowledged is in the log, once."""

import random
import statistics
import time

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.service.serving import Load, Running, loading, serving, wrong_in_log
from benchmarks.service.serving_toy import pipeline, publish
from headwater.loop.binding import Bound

__all__ = ["await_load", "measure"]

_KILLS, _SHORT_KILLS = 200, 2
_CONNECTIONS = 8
_WORKERS = 2
_MOST_PAUSE_S = 2.0
_LEAST_BETWEEN = 200
_LOOK_S = 0.05
_LIMIT_S = 600.0


def measure(*, short: bool) -> Outcome:
    """Kill a worker with SIGKILL two hundred times (half an hour), then look at the log.

    Eight connections of another process predict and label, and send a request again under its id until
    it is answered. A kill comes up to two seconds after both workers hold connections of the load, and
    two hundred predictions and labels after the kill before. ``ratio`` is the number of acknowledged
    predictions and labels that are not in the log exactly once; what a kill cannot show is in `syncs`.
    """
    drawn = random.Random(6)
    with fresh_home(mlflow_database()) as settings:
        publish(settings)
        with Bound(pipeline, settings) as bound:
            begun = bound.log.stop()
        with serving(settings, _WORKERS) as to, loading(to, _CONNECTIONS, retry=True) as load:
            between = _kill(to, load, drawn, _SHORT_KILLS if short else _KILLS)
            found = load.end()
        with Bound(pipeline, settings) as bound:
            wrong = wrong_in_log(bound, begun, found)
    return at_most(
        float(wrong),
        0.0,
        also=len(found.labelled) > 0,
        kills=len(between),
        acknowledged=len(found.acknowledged),
        labelled=len(found.labelled),
        between_kills_least=min(between),
        between_kills_median=round(statistics.median(between)),
        sent_again=found.failed,
    )


def await_load(to: Running, load: Load, workers: int, acknowledged: int = 0) -> None:
    """Wait until the load reaches so many workers, and so much of it was acknowledged altogether.

    Raises
    ------
    TimeoutError
        If that takes ten minutes.
    """
    until = time.monotonic() + _LIMIT_S
    while len(to.answering()) < workers or load.acknowledged < acknowledged:
        if time.monotonic() > until:
            raise TimeoutError("the workers do not come back")
        time.sleep(_LOOK_S)


def _kill(to: Running, load: Load, drawn: random.Random, kills: int) -> list[int]:
    """Kill workers; give how much was acknowledged before each kill, since the one before."""
    between = []
    for number in range(kills):
        before = load.acknowledged
        await_load(to, load, _WORKERS, before + _LEAST_BETWEEN)
        time.sleep(drawn.uniform(0.0, _MOST_PAUSE_S))
        drawn.choice(to.answering()).kill()
        between.append(load.acknowledged - before)
        if number % 20 == 19:
            say(f"  {number + 1} killed")
    return between
