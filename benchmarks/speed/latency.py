"""The 99th percentile of a prediction at half the saturating load, beside a no-op endpoint."""

import random
import statistics

import msgspec

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.service.load import LOAD_CORE, load, noop_app, pinned, served_app, server
from benchmarks.service.serving_toy import features, pipeline, publish

__all__ = ["measure"]

_BOUND = 3.0
_CONNECTIONS = 64
_REQUESTS, _SHORT_REQUESTS = 20_000, 400
_TURNS, _SHORT_TURNS = 5, 1


def measure(*, short: bool) -> Outcome:
    """Send to both at the same rate: half of what the service answers when it is asked without pause.

    As in `prediction-cost`: twenty features, a durable record, 64 connections, one core each. A latency
    counts from when its request was due. Each turn first asks without pause: a machine may be half as
    fast a minute later. ``ratio`` is of the medians over five turns.
    """
    requests = _SHORT_REQUESTS if short else _REQUESTS
    drawn = random.Random(7)
    bodies = [msgspec.json.encode({"features": features(drawn)}) for _ in range(requests)]
    found, failed = [], 0
    with fresh_home(mlflow_database()) as settings:
        publish(settings)
        with (
            server(served_app(pipeline), settings) as ours,
            server(noop_app, settings, "httptools") as noop,
            pinned(LOAD_CORE),
        ):
            load(ours, bodies, _CONNECTIONS)
            for _ in range(_SHORT_TURNS if short else _TURNS):
                full = load(ours, bodies, _CONNECTIONS)
                rate = full.requests / full.wall_s / 2
                a, b = (load(to, bodies, _CONNECTIONS, rate) for to in (ours, noop))
                failed += a.failed + b.failed
                found.append((a.percentile(0.99), b.percentile(0.99), rate))
                say(f"  {found[-1][0]:.1f} ms against {found[-1][1]:.1f} at {rate:.0f} a second")
    ours_ms, noop_ms, rate = (statistics.median(side) for side in zip(*found, strict=True))
    return at_most(
        ours_ms / noop_ms,
        _BOUND,
        also=failed == 0,
        prediction_ms=round(ours_ms, 2),
        noop_ms=round(noop_ms, 2),
        rate=round(rate),
        failed=failed,
    )
