"""A home is lost, and PostgreSQL and S3 stay, or S3 alone: another adopts its log, and names a loss."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.claim import Outcome, at_least, say
from benchmarks.faults.postgres_server import running_postgres
from headwater.infra.processes import Child, fetch, free_port
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect

__all__ = ["measure"]

_HOMES = 20
_SHORT_HOMES = 3
_S, _SHORT_S = (4.0, 12.0), (0.5, 1.5)
_START_S = 600.0
_BATCHES = 4  # after the third one it has collected
_WORKER = """
import sys
from datetime import UTC, datetime
from itertools import count
from headwater.infra.settings import settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.spec.data.records import Label, Prediction
from headwater.spec.loading import load_pipeline

with Bound(load_pipeline(sys.argv[1]), settings()) as bound:
    for batch in count():
        now = datetime.now(UTC)
        ids = [f"{sys.argv[2]}-{batch}-{i}" for i in range(20)]
        rows = [{"x": float(i), "y": 1.0} for i in range(20)]
        bound.log.record([
            Prediction(id=id_, features=row, output=0.5, served_at=now) for id_, row in zip(ids, rows)
        ])
        bound.log.label([
            Label(prediction_id=id_, value=i % 2 == 0, known_at=now) for i, id_ in enumerate(ids)
        ])
        print(batch, flush=True)
        if batch % 3 == 2:
            collect(bound.log)
        if batch % 9 == 8:
            train(bound)
"""
_PIPELINE = """
from headwater import Feature, LabelRule, Pipeline, Stateful

def model():
    from sklearn.linear_model import SGDClassifier
    return SGDClassifier(loss="log_loss", random_state=0)

kept = Pipeline(name="kept", task="binary", features=(Feature("x", float), Feature("y", float)),
                label=LabelRule(wait="1d"), model=model, update=Stateful())
"""


def measure(*, short: bool) -> Outcome:
    """Kill a process that records, collects and trains, delete its home, and adopt its log in the next.

    Every second time the databases of headwater and of MLflow are lost, too: S3 is left alone.

    ``ratio`` is the share of homes after whose loss every record was there once that the lost inbox had
    acknowledged up to the stated position, and every version held and rebuilt from where the last ended.
    """
    homes = _SHORT_HOMES if short else _HOMES
    drawn, wrong, behind = random.Random(5), [], []
    with tempfile.TemporaryDirectory(prefix="headwater-adopt-") as made, _stores(Path(made)) as fresh:
        folder, stores, alone = Path(made), fresh(), 0
        (folder / "kept.py").write_text(_PIPELINE)
        reference, kept = f"{folder / 'kept.py'}:kept", b""
        expected, acknowledged = set[str](), list[str]()
        for number in range(homes):
            home = folder / f"home{number}"
            if number and number % 2 == 0:
                stores, alone = fresh(), alone + 1
            variables = {**stores, "HEADWATER_HOME": str(home)}
            if not number:
                Settings(home=home).key()  # also if it is killed before it has trained
            else:
                home.mkdir(mode=0o700)
                (home / "signing.key").write_bytes(kept)
                adopted = _adopt(variables)
                expected |= _up_to(adopted["lost"][0]["read_to"], number - 1, acknowledged)
                behind.append(2 * 20 * len(acknowledged) - adopted["lost"][0]["read_to"])
                wrong += _wrong(adopted, expected, reference, home, stores)
            after_s = drawn.uniform(*(_SHORT_S if short else _S))
            acknowledged = _killed(reference, variables, number, after_s)
            kept = (home / "signing.key").read_bytes()
            shutil.rmtree(home)
            say(f"  home {number}: {len(acknowledged)} batches, then lost")
    return at_least(
        1.0 - len(wrong) / (homes - 1),
        1.0,
        adopted=homes - 1,
        of_s3_alone=alone,
        records_lost_and_named=behind,
        wrong=wrong[:10],
    )


def _killed(reference: str, variables: dict[str, str], number: int, after_s: float) -> list[str]:
    """Let a process work so long after its first collect, kill it; return what it acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _WORKER, reference, str(number)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(_BATCHES)]
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().splitlines(keepends=True)
    process.wait()
    return [line.strip() for line in lines if line.endswith("\n")]


def _up_to(read_to: int, number: int, batches: list[str]) -> set[str]:
    """Return the ids of the predictions that a home acknowledged up to a position of its inbox."""
    ids = [f"{number}-{batch}-{i}" for batch in batches for i in range(20)]
    positions = [40 * int(batch) + i + 1 for batch in batches for i in range(20)]
    return {id_ for id_, position in zip(ids, positions, strict=True) if position <= read_to}


def _adopt(variables: dict[str, str]) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "headwater.cli", "adopt", "kept", "--json"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(ended.stdout + ended.stderr)
    adopted: dict[str, Any] = msgspec.json.decode(ended.stdout)
    return adopted


def _wrong(
    adopted: dict[str, Any], expected: set[str], reference: str, home: Path, stores: dict[str, str]
) -> list[str]:
    """Return at most one text on what is not as it was stated."""
    from headwater.loop.rebuild import rebuild_here  # noqa: PLC0415 - heavy
    from headwater.spec.loading import load_pipeline  # noqa: PLC0415 - as above

    names = {name.removeprefix("HEADWATER_").lower(): value for name, value in stores.items()}
    own = {name: value for name, value in names.items() if name in Settings.model_fields}
    settings = Settings(home=home, **own)  # type: ignore[arg-type] # as the variables are
    with Bound(load_pipeline(reference), settings) as bound:
        collect(bound.log)
        found = bound.log.predictions()["prediction_id"].to_list()
        versions = [version.number for version in bound.registry.store.versions()]
    if len(found) != len(set(found)) or not expected <= set(found):
        return [
            f"{home.name}: {len(expected - set(found))} missing, {len(found) - len(set(found))} twice"
        ]
    if any(adopted[name] for name in ("refused", "gone", "left")) or adopted["versions"] != len(
        versions
    ):
        return [f"{home.name}: versions {adopted}"]
    if versions and not rebuild_here("kept", versions[-1], settings).equal:
        return [f"{home.name}: version {versions[-1]} does not rebuild"]
    return []


@contextmanager
def _stores(folder: Path) -> Iterator[Callable[[], dict[str, str]]]:
    """Start PostgreSQL and moto's S3; what is yielded makes databases, and says where all stores are."""
    port = free_port(0, "")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    os.environ.update(keys)
    moto = Child("moto", command, os.environ, folder / "moto.log")
    try:
        moto.await_answer(lambda: fetch(port, "/moto-api/data.json") is not None, _START_S)
        with running_postgres() as postgres:
            yield lambda: {
                **keys,
                "HEADWATER_DATABASE_URL": postgres.new_database(),
                "HEADWATER_MLFLOW_URI": postgres.new_database(),
                "HEADWATER_STORAGE": "s3://kept/log",
                "HEADWATER_S3_ENDPOINT": f"http://127.0.0.1:{port}",
            }
    finally:
        moto.end()
