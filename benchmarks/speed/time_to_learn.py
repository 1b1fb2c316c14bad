"""How long from a label's acknowledgement to a state that has learned it and serves."""

import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
from msgspec.structs import replace

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database
from benchmarks.service.load import LOAD_CORE, pinned, served_app, server
from benchmarks.service.serving_toy import features, pipeline, publish
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.serving.client.client import Client

__all__ = ["each_label", "keeping", "measure"]

_BOUND_S = 1.0
_RATE = 200.0
_LABELS, _SHORT_LABELS = 12_000, 200
_TOGETHER = 20
_LOOK_S = 0.01

each_label = replace(pipeline, learn="each label")


def measure(*, short: bool) -> Outcome:
    """Label at 200 a second for a minute, and look a hundred times a second at what has been learned.

    The service's worker is on one core; the keeper, which learns, and the load are on the other. A label
    counts as learned when the worker that answers has a state of its offset. ``ratio`` is the 99th
    percentile, in seconds.
    """
    labels = _SHORT_LABELS if short else _LABELS
    with fresh_home(mlflow_database()) as settings:
        publish(settings)
        with Bound(each_label, settings) as bound:
            begun = bound.log.stop()
        with (
            server(served_app(each_label), settings) as to,
            pinned(LOAD_CORE),
            keeping(settings),
        ):
            told, learned = _run(f"http://127.0.0.1:{to.port}", begun, labels)
    waits = sorted(_waits(begun, told, learned))
    return at_most(
        waits[round(0.99 * len(waits)) - 1],
        _BOUND_S,
        also=len(waits) == labels,
        median_s=round(statistics.median(waits), 3),
        longest_s=round(waits[-1], 3),
        labels=labels,
        rate=round(labels / (told[-1] - told[0])) if labels > 1 else 0,
    )


@contextmanager
def keeping(settings: Settings) -> Iterator[None]:
    """Run the keeper of the pipeline that learns each label; it makes a version when the block ends."""
    command = [sys.executable, "-m", "headwater.serving.keeper", f"{__file__}:each_label"]
    variables = {"HEADWATER_HOME": str(settings.root)}
    process = subprocess.Popen(command, env=os.environ | variables, stderr=subprocess.DEVNULL)
    try:
        while not (settings.root / "live" / "looked").exists():
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _run(address: str, begun: int, labels: int) -> tuple[list[float], list[tuple[float, int]]]:
    """Give when each label was acknowledged, and when the worker had learned up to where."""
    told: list[float] = []
    learned: list[tuple[float, int]] = []

    def look() -> None:
        with httpx.Client(base_url=address, timeout=60) as http:
            until = time.monotonic() + 600
            while (not learned or learned[-1][1] < begun + labels) and time.monotonic() < until:
                found = json.loads(http.get("/pipelines").content)[0]["learned_to"] or 0
                learned.append((time.monotonic(), found))
                time.sleep(_LOOK_S)

    looking = threading.Thread(target=look)
    looking.start()
    drawn, began = random.Random(2), time.monotonic()
    with Client(address) as client:
        for first in range(0, labels, _TOGETHER):
            time.sleep(max(0.0, began + first / _RATE - time.monotonic()))
            asked = [{"id": f"q{first + n}", "features": features(drawn)} for n in range(_TOGETHER)]
            client.send_predictions(asked)
            known_at = datetime.now(UTC)
            client.send_labels(
                [
                    {"prediction_id": one["id"], "value": drawn.random() < 0.5, "known_at": known_at}
                    for one in asked
                ]
            )
            told += [time.monotonic()] * _TOGETHER
    looking.join()
    return told, learned


def _waits(begun: int, told: list[float], learned: list[tuple[float, int]]) -> Iterator[float]:
    place = 0
    for number, at in enumerate(told):
        while place < len(learned) and learned[place][1] < begun + number + 1:
            place += 1
        if place < len(learned):
            yield max(0.0, learned[place][0] - at)
