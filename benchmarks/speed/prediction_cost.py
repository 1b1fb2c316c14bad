"""What a durable, logged prediction costs, beside an endpoint that does nothing."""

import random
import statistics

import msgspec

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.service.load import LOAD_CORE, load, noop_app, pinned, served_app, server
from benchmarks.service.serving_toy import features, pipeline, publish

__all__ = ["measure"]

_BOUND = 2.5
_CONNECTIONS = 64
_REQUESTS, _SHORT_REQUESTS = 10_000, 2_000
_TURNS, _SHORT_TURNS = 9, 1


def measure(*, short: bool) -> Outcome:
    """Compare CPU for each request of ``/predict`` and of a no-op endpoint of plain Starlette.

    Twenty features, River's scaler and logistic regression, a durable record, 64 connections that each
    wait for their answer. Both servers are one uvicorn process on one core, ours with the protocol of
    ``headwater serve``, the no-op with uvicorn's own; the load is on the other core. Turns alternate,
    after one to warm up.
    """
    requests = _SHORT_REQUESTS if short else _REQUESTS
    drawn = random.Random(1)
    bodies = [msgspec.json.encode({"features": features(drawn)}) for _ in range(requests)]
    found, failed = [], 0
    with fresh_home(mlflow_database()) as settings:
        publish(settings)
        with (
            server(served_app(pipeline), settings) as ours,
            server(noop_app, settings, "httptools") as noop,
            pinned(LOAD_CORE),
        ):
            for turn in range(1 + (_SHORT_TURNS if short else _TURNS)):
                a, b = (load(to, bodies, _CONNECTIONS) for to in (ours, noop))
                failed += a.failed + b.failed
                say(f"  {a.cpu_us:.0f} us against {b.cpu_us:.0f}, {a.requests / a.wall_s:.0f} a second")
                if turn:
                    found.append((a.cpu_us, b.cpu_us))
    ratio = statistics.median(a / b for a, b in found)
    return at_most(
        ratio,
        _BOUND,
        also=failed == 0,
        prediction_us=round(statistics.median(a for a, _ in found), 1),
        noop_us=round(statistics.median(b for _, b in found), 1),
        failed=failed,
        requests=requests * len(found),
    )
