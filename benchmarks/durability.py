"""Workers killed at random moments under load: what was acknowledged is in the log, once."""

import random
import time
from collections import Counter

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.serving import Loaded, Running, await_ready, loading, serving
from benchmarks.serving_toy import pipeline, publish
from headwater.loop.binding import Bound

__all__ = ["measure"]

_KILLS, _SHORT_KILLS = 200, 2
_CONNECTIONS = 8
_WORKERS = 2
_MOST_PAUSE_S = 2.0
_LOOK_S = 0.05
_LIMIT_S = 120.0


def measure(*, short: bool) -> Outcome:
    """Kill a worker with SIGKILL two hundred times (a quarter of an hour), then look at the log.

    Eight connections of another process predict and label, and send a request again under its id until
    it is answered. ``ratio`` is the number of acknowledged predictions and labels that are not in the
    log exactly once.
    """
    drawn = random.Random(6)
    with fresh_home(mlflow_database()) as settings:
        publish(settings)
        with serving(settings) as to, loading(to, _CONNECTIONS, retry=True) as load:
            kills = _kill(to, drawn, _SHORT_KILLS if short else _KILLS)
            load.send(None)
            found: Loaded = load.recv()
        with Bound(pipeline, settings) as bound:
            start = bound.log.stop()
            with bound.log.sequencer() as sequencer:
                sequencer.drain()
            predicted = Counter(bound.log.predictions()["prediction_id"].to_list())
            labelled = Counter(bound.log.examples(start)["prediction_id"].to_list())
    wrong = sum(predicted[id_] != 1 for id_ in found.acknowledged)
    wrong += sum(labelled[id_] != 1 for id_ in found.labelled)
    return at_most(
        float(wrong),
        0.0,
        also=len(found.labelled) > 0,
        kills=kills,
        acknowledged=len(found.acknowledged),
        labelled=len(found.labelled),
        sent_again=found.failed,
    )


def _kill(to: Running, drawn: random.Random, kills: int) -> int:
    for number in range(kills):
        until = time.monotonic() + _LIMIT_S
        while len(to.workers()) < _WORKERS:
            if time.monotonic() > until:
                raise TimeoutError("the workers do not come back")
            time.sleep(_LOOK_S)
        await_ready(to.address)  # at least one answers: the kill falls into a load
        time.sleep(drawn.uniform(0.0, _MOST_PAUSE_S))
        drawn.choice(to.workers()).kill()
        if number % 20 == 19:
            say(f"  {number + 1} killed")
    return kills
