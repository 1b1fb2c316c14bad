"""The state of the learning service, after labels out of order, against a rebuild of it."""

import random
from datetime import UTC, datetime

from benchmarks.claim import Outcome, at_least, fresh_home, mlflow_database
from benchmarks.service.load import served_app, server
from benchmarks.service.serving_toy import features, publish
from benchmarks.speed.time_to_learn import each_label, keeping
from headwater.loop.binding import Bound
from headwater.loop.rebuild import rebuild
from headwater.serving.client.client import Client

__all__ = ["measure"]

_REQUESTS, _SHORT_REQUESTS = 50_000, 1_000
_TOGETHER = 50
_WAITING = 2_000


def measure(*, short: bool) -> Outcome:
    """Predict fifty thousand times, label in random order, end the service, rebuild its version.

    The labels of two thousand predictions wait at any time, and come in random order; one in twenty is
    revised later. ``ratio`` is 1 where the digests are equal.
    """
    requests = _SHORT_REQUESTS if short else _REQUESTS
    drawn = random.Random(5)
    with fresh_home(mlflow_database()) as settings:
        publish(settings)
        with (
            keeping(settings),
            server(served_app(each_label), settings) as to,
            Client(f"http://127.0.0.1:{to.port}", timeout_s=60) as client,
        ):
            _talk(client, drawn, requests)
        with Bound(each_label, settings) as bound:
            champion = bound.registry.champion()
            learned = 0 if champion is None else champion.learned
        found = [] if champion is None else rebuild(each_label.name, champion.number, settings).versions
    equal = [one.digest == one.rebuilt_digest for one in found]
    return at_least(
        float(all(equal)), 1.0, also=learned > requests, learned=learned, versions=len(equal)
    )


def _talk(client: Client, drawn: random.Random, requests: int) -> None:
    waiting: list[tuple[str, bool]] = []
    for first in range(0, requests, _TOGETHER):
        asked = [{"id": f"q{first + n}", "features": features(drawn)} for n in range(_TOGETHER)]
        client.send_predictions(asked)
        waiting += [(str(one["id"]), drawn.random() < 0.5) for one in asked]
        drawn.shuffle(waiting)
        keep = _WAITING if first + _TOGETHER < requests else 0
        while len(waiting) > keep:
            some = [waiting.pop() for _ in range(min(_TOGETHER, len(waiting)))]
            _tell(client, some, "first")
            revised = [(id_, not value) for id_, value in some if drawn.random() < 0.05]
            if revised:
                _tell(client, revised, "second")


def _tell(client: Client, some: list[tuple[str, bool]], key: str) -> None:
    known_at = datetime.now(UTC)
    client.send_labels(
        [{"prediction_id": id_, "value": value, "key": key, "known_at": known_at} for id_, value in some]
    )
