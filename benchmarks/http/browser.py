"""A page elsewhere, in a real browser, has no effect on the servers of its reader's machine."""

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import msgspec

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.http.attacks import EVIL, WAYS, Attack, attacked, pages
from benchmarks.http.chromium import Tab, chromium
from benchmarks.http.fuzz import fuzzed
from benchmarks.service.in_thread import answering
from benchmarks.service.serving_toy import FEATURES, publish
from headwater.features.log import FeatureLog
from headwater.infra.same_origin import SameOrigin
from headwater.infra.settings import Settings
from headwater.loop.batch.batch_predict import batch_predict
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.serving.api.operations import (
    BATCH_PREDICT,
    LABEL,
    OPERATIONS,
    PREDICT,
    V2_INFER,
    V2_INFER_VERSION,
)
from headwater.serving.http.fast_protocol import FastProtocol
from headwater.serving.keeper.batch_publisher import BatchPublisher
from headwater.serving.keeper.operator_socket import OperatorSocket
from headwater.serving.process.app import create_app
from headwater.spec.data.records import Prediction

__all__ = ["measure"]

_ASKED = 50
_PAGES = 3
_SHORT_WAYS = ("form as text", "fetch as text", "image", "fetch as it is")
_IDLE = ("form by name", "form in parts")
"""Ways in which no server here takes a body."""
_FEATURES = {f"x{n}": 0.5 for n in range(FEATURES)}
_TENSORS = [
    {"name": name, "shape": [1], "datatype": "FP64", "data": [value]}
    for name, value in _FEATURES.items()
]
_BODIES: dict[str, dict[str, object]] = {
    PREDICT.name: {"pipeline": "served", "id": "EVIL", "features": _FEATURES},
    LABEL.name: {"pipeline": "served", "prediction_id": "asked-0", "value": True, "key": "EVIL"},
    BATCH_PREDICT.name: {"id": "EVIL", "features": _FEATURES},
    V2_INFER.name: {"id": "EVIL", "inputs": _TENSORS},
    V2_INFER_VERSION.name: {"id": "EVIL", "inputs": _TENSORS},
}
_PLACES = {
    "{pipeline}": "served",
    "{model}": "served",
    "{version}": "2",
    "{key:any}": "customer-17",
    "{prediction_id:any}": "asked-0",
}


class _Target(NamedTuple):
    """A server that is attacked.

    Parameters
    ----------
    port
        Where it listens.
    attacks
        What it would obey.
    rows
        Returns the rows of its stores as they are now.
    begin
        Prepares for another way: what can change only once may change again.
    """

    port: int
    attacks: tuple[Attack, ...]
    rows: Callable[[], set[str]]
    begin: Callable[[], None]


def measure(*, short: bool) -> Outcome:
    """Attack the service from a page in Chromium, in each way that a page has.

    The page is open by another port of the same host, by another name, and by a name that was pointed at
    the service itself. It sends every operation of the service, with a body that it obeys, as a form,
    by ``fetch`` with each of the types that need no leave, as a beacon, an image, a script, a frame and
    a socket, and by plain ``fetch``.

    ``ratio`` is the number of rows in the stores that changed. Also, the same attacks change rows if the
    door is taken away, in each way in which a server takes what is sent: ``undefended`` has them by way.
    """
    ways = _SHORT_WAYS if short else WAYS
    with pages() as elsewhere, chromium({EVIL: "127.0.0.1"}) as tab:
        with _service(door=True) as target:
            sent = len(target.attacks)
            effects = _effects(tab, elsewhere, target, ways)
        with _service(door=False) as target:
            undefended = _effects(tab, elsewhere, target, ways)
    for way, count in sorted(effects.items()):
        say(f"  {way}: {count}")
    return at_most(
        float(effects.total()),
        0.0,
        also=all(undefended[way] for way in ways if way not in _IDLE),
        sent=_PAGES * len(ways) * sent,
        effects=dict(effects),
        undefended=dict(undefended),
    )


def _effects(tab: Tab, elsewhere: int, target: _Target, ways: tuple[str, ...]) -> Counter[str]:
    """Attack a server from each page in each way; return the number of rows that changed, by way."""
    effects: Counter[str] = Counter()
    base = f"http://127.0.0.1:{target.port}"
    rebound = f"http://{EVIL}:{target.port}"
    for page, at in (
        (f"http://127.0.0.1:{elsewhere}/", base),
        (f"http://{EVIL}:{elsewhere}/", base),
        (f"{rebound}/v2/health/live", rebound),
    ):
        for way in ways:
            tab.open(page)
            target.begin()
            before = target.rows()
            attacked(tab, at, way, target.attacks)
            effects[way] += len(target.rows() - before)
    return effects


@contextmanager
def _service(*, door: bool) -> Iterator[_Target]:
    """Serve the toy with a queue, a table and operators, and no key; with the door or without."""
    with fresh_home(mlflow_database()) as settings, ExitStack() as stack:
        publish(settings, fuzzed)
        with Bound(fuzzed, settings) as bound:
            _ask_people(bound.log)
            batch_predict(bound)
            BatchPublisher([bound]).step()
        if not door:
            stack.enter_context(patch.object(SameOrigin, "check", lambda *_, **__: None))
        stack.enter_context(OperatorSocket([fuzzed], settings))
        port = stack.enter_context(answering(create_app([fuzzed], settings), FastProtocol))
        yield _Target(port, tuple(_attacks()), lambda: _rows(settings), lambda: _forget_reads(settings))


def _ask_people(log: FeatureLog) -> None:
    """Fill the queue of questions."""
    now = datetime.now(UTC)
    log.record(
        [
            Prediction(id=f"asked-{n}", features=_FEATURES | {"x0": float(n)}, output=0.5, served_at=now)
            for n in range(_ASKED)
        ]
    )
    collect(log)
    log.queue().fill()


def _attacks() -> Iterator[Attack]:
    """Yield each operation of the service, with a body that it obeys."""
    for row in OPERATIONS:
        path = row.path
        for place, value in _PLACES.items():
            path = path.replace(place, value)
        body = _BODIES.get(row.name) or dict(row.example or {})
        if row.method != "GET" and "EVIL" not in msgspec.json.encode(body).decode():
            body["person" if "person" in body else "reason"] = "EVIL"
        if "prediction_id" in body:
            body["prediction_id"] = "asked-1" if "person" in body else "asked-0"
        yield Attack(method=row.method, path=path, body=msgspec.json.encode(body or ["EVIL"]).decode())


def _rows(settings: Settings) -> set[str]:
    """Return every row of the operational database and the inboxes, and which answers were looked up."""
    found: set[str] = set()
    for path in (settings.root / "headwater.sqlite", *(settings.root / "inbox").glob("*.sqlite")):
        found |= _rows_of(path)
    for path in _reads(settings):
        found |= {f"{path.name} {n}" for n, read in enumerate(path.read_bytes()) if read}
    return found


def _forget_reads(settings: Settings) -> None:
    """Take back which answers were looked up: each is counted once."""
    for path in _reads(settings):
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))


def _reads(settings: Settings) -> Iterator[Path]:
    return (settings.root / "live").rglob("*.reads")


def _rows_of(path: Path) -> set[str]:
    found: set[str] = set()
    database = sqlite3.connect(f"file:{os.fspath(path)}?mode=ro", uri=True)
    try:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            rows = database.execute(f'SELECT * FROM "{table}"')
            found |= {f"{path.name} {table} {row!r}" for row in rows}
    finally:
        database.close()
    return found
