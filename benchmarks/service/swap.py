"""Swaps and worker restarts under load fail no request."""

import signal
import time
from collections.abc import Callable

import httpx

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.service.serving import Running, loading, serving
from benchmarks.service.serving_toy import pipeline, publish
from headwater.loop.binding import Bound

__all__ = ["measure"]

_SWAPS, _SHORT_SWAPS = 50, 2
_RESTARTS, _SHORT_RESTARTS = 10, 1
_CONNECTIONS = 8
_LOOK_S = 0.05
_LIMIT_S = 600.0


def measure(*, short: bool) -> Outcome:
    """Promote one version and another in turns, and restart the workers, each request sent once.

    Eight connections of another process predict and label meanwhile; nothing is sent again. A swap is
    over when ten new connections in a row meet the promoted version. A round of restarts replaces both
    workers, one after the other.
    ``ratio`` is the number of requests that failed.
    """
    with fresh_home(mlflow_database()) as settings:
        publish(settings)
        with (
            Bound(pipeline, settings) as bound,
            serving(settings) as to,
            loading(to, _CONNECTIONS, retry=False) as load,
        ):
            swaps = _swap(bound, to, _SHORT_SWAPS if short else _SWAPS)
            restarts = _restart(to, _SHORT_RESTARTS if short else _RESTARTS)
            found = load.end()
    return at_most(
        float(found.failed),
        0.0,
        swaps=swaps,
        restarts=restarts,
        requests=len(found.acknowledged) + len(found.labelled),
        versions=found.versions,
    )


def _swap(bound: Bound, to: Running, swaps: int) -> int:
    for number in range(swaps):
        version = "1" if number % 2 == 0 else "2"
        bound.registry.promote(version, by="benchmark", reason="a swap")
        _await(lambda version=version: _answers_all(to, version))  # type: ignore[misc] # bound now
        say(f"  swap {number + 1}: version {version} serves")
    return swaps


def _answers_all(to: Running, version: str) -> bool:
    """Say whether the last ten looks, over new connections to either worker, saw the version."""
    looks = [httpx.get(f"{to.address}/pipelines", timeout=60).json()[0]["version"] for _ in range(10)]
    return set(looks) == {version}


def _restart(to: Running, restarts: int) -> int:
    done = 0
    while done < restarts:
        old = {worker.pid for worker in to.workers()}
        to.process.send_signal(signal.SIGHUP)
        _await(lambda old=old: _replaced(to, old))  # type: ignore[misc] # bound now
        done += len(old)
        say(f"  {done} workers restarted")
    return done


def _replaced(to: Running, old: set[int]) -> bool:
    new = {worker.pid for worker in to.workers()}
    return len(new) == len(old) and not old & new


def _await(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + _LIMIT_S
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError("the service does not follow")
        time.sleep(_LOOK_S)
