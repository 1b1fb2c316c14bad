"""Logged predictions replayed on their logged features: the same outputs."""

import random

import numpy as np

from benchmarks.claim import Outcome, at_least, fresh_home, mlflow_database
from benchmarks.service.load import served_app, server
from benchmarks.service.serving_toy import features, pipeline, publish
from headwater.loop.binding import Bound
from headwater.serving.client.client import Client

__all__ = ["measure"]

_PREDICTIONS, _SHORT_PREDICTIONS = 1_000_000, 5_000
_TOGETHER = 1_000
_DRAWN = 5_000
_CHUNK = 50_000
_LEAST = 1e-9


def measure(*, short: bool) -> Outcome:
    """Ask for a million predictions over HTTP, then predict again from what the log holds.

    ``ratio`` is the share of outputs that are equal within 1e-9.
    """
    wanted = _SHORT_PREDICTIONS if short else _PREDICTIONS
    drawn = random.Random(4)
    pool = [features(drawn) for _ in range(_DRAWN)]
    with fresh_home(mlflow_database()) as settings:
        publish(settings)
        with (
            server(served_app(pipeline), settings) as to,
            Client(f"http://127.0.0.1:{to.port}", timeout_s=60) as client,
        ):
            for _ in range(0, wanted, _TOGETHER):
                client.predict_many(drawn.choices(pool, k=_TOGETHER))
        with Bound(pipeline, settings) as bound:
            before = bound.log.positions()
            with bound.log.sequencer() as sequencer:
                sequencer.drain()
            differ, compared = _compare(bound, before)
    return at_least(
        1 - differ / compared, 1.0, also=compared == wanted, compared=compared, differ=differ
    )


def _compare(bound: Bound, start: int) -> tuple[int, int]:
    champion = bound.registry.champion()
    if champion is None:
        return 0, 0
    learner = bound.registry.store.learner(champion)
    differ = compared = 0
    for first in range(start, bound.log.positions(), _CHUNK):
        rows = bound.log.served(
            first, min(first + _CHUNK, bound.log.positions()), ("output", "features")
        )
        again = np.array(learner.predict(rows["features"].struct.unnest()), dtype=np.float64)
        differ += int((np.abs(again - rows["output"].to_numpy()) > _LEAST).sum())
        compared += rows.height
    return differ, compared
