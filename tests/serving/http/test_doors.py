"""Every door has the same rule for a value: if one door refuses it, all do, and none records it."""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import polars as pl
import pytest
from tests.conftest import START
from tests.learners import estimators
from tests.serving.running import running

from headwater.features.tables.table_rows import conform
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.batch.batch_source import chunk_of
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.operator.operations import Operator
from headwater.loop.replay.import_history import import_history
from headwater.loop.training.update import train
from headwater.serving.access.key_store import KeyStore
from headwater.serving.client.client import Client
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.keeper.operator_socket import OperatorSocket
from headwater.serving.process.app import create_app
from headwater.spec.data.feature import Feature
from headwater.spec.data.feature_table import FeatureTable
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.data.source import ParquetSource
from headwater.spec.data.values import LARGEST
from headwater.spec.errors import HeadwaterError, SchemaError
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.batch import BatchPrediction
from headwater.spec.serving.queue import People
from headwater.spec.updating.update import Stateful

NOW = START + timedelta(days=2)
SOURCE = ParquetSource("t.parquet")
TABLE = FeatureTable(name="t", entity=("k",), source=SOURCE, every="1h")
BATCH = BatchPrediction(source=SOURCE, key="k", fall_through=True)
DOORS = Pipeline(
    name="doors",
    task="regression",
    features=(Feature("a", float), Feature("b", float, nullable=True), Feature("c", str, nullable=True)),
    label=LabelRule(wait="1d"),
    model=estimators.sgd_regression,
    update=Stateful(),
    people=People(),
    batch=BATCH,
)
JSON = {"content-type": "application/json"}
VERSION = "/v2/models/doors/versions/1/infer"
PLAIN: dict[str, Any] = {"a": 1.0, "b": None, "c": "x"}


class Doors:
    """All doors by which a value may come in; each raises a headwater error if it refuses."""

    def __init__(self, bound: Bound, http: httpx.Client, client: Client) -> None:
        self.bound, self.http, self.client, self.count = bound, http, client, 0
        self.question_id = self.ask_ada()

    @property
    def record_count(self) -> int:
        return self.bound.log.inbox.count_after(0)

    def new(self) -> str:
        self.count += 1
        return f"new-{self.count}"

    def post(self, path: str, body: dict[str, Any], method: str = "POST") -> dict[str, Any]:
        answer = self.http.request(method, path, content=json.dumps(body), headers=JSON)
        found: dict[str, Any] = answer.json()
        if answer.status_code != 200:
            assert answer.status_code == 422, answer.text
            raise SchemaError(found.get("detail") or found["error"])
        return found

    def label_many(self, item: dict[str, Any]) -> None:
        try:
            (found,) = self.post("/labels", {"labels": [item]})["labels"]
        except SchemaError:
            return self.refuse()
        if found["status"] == "refused":
            self.refuse()
        return None

    @staticmethod
    def refuse() -> None:
        raise SchemaError("refused")

    def record(self, id_: str | None = None, **changed: Any) -> None:
        """Record a prediction beside a valid one; if it is refused, neither is recorded."""
        made: dict[str, Any] = {"features": PLAIN, "output": 0.5, "served_at": NOW} | changed
        good = Prediction(id=self.new(), features=PLAIN, output=0.5, served_at=NOW)
        bad = Prediction(id=self.new() if id_ is None else id_, **made)
        self.bound.log.record([good, bad])

    def history(self, id_: str | None = None, value: Any = 1.0, **changed: Any) -> None:
        made: dict[str, Any] = {"features": PLAIN, "output": 0.5, "served_at": NOW} | changed
        one = Prediction(id=self.new() if id_ is None else id_, role="imported", **made)
        self.bound.log.import_history([(one, Label(prediction_id=one.id, value=value, known_at=NOW))])

    def frame(self, id_: str | None = None, label: Any = 1.0, **changed: Any) -> None:
        row = PLAIN | changed | {"id": self.new() if id_ is None else id_, "label": label}
        schema = {"id": pl.String, "label": pl.Float64, "a": pl.Float64, "b": pl.Float64, "c": pl.String}
        try:
            frame = pl.DataFrame([row], schema=schema)
        except UnicodeEncodeError:
            return self.refuse()  # no dataframe holds it
        times = (pl.lit(NOW).alias("served_at"), pl.lit(NOW).alias("known_at"))
        import_history(self.bound.log, frame.with_columns(*times))
        return None

    def binary(self, **changed: Any) -> None:
        packed, inputs = b"", []
        for name, value in {"a": 1.0, "b": 1.0, "c": "x", **changed}.items():
            data = struct.pack("<d", value) if name != "c" else value.encode("utf-8", "surrogatepass")
            data = data if name != "c" else struct.pack("<I", len(data)) + data
            kind = "BYTES" if name == "c" else "FP64"
            inputs.append({
                "name": name, "shape": [1], "datatype": kind,
                "parameters": {"binary_data_size": len(data)},
            })  # fmt: skip
            packed += data
        head = json.dumps({"inputs": inputs}).encode()
        headers = {"inference-header-content-length": str(len(head))}
        answer = self.http.post("/v2/models/doors/infer", content=head + packed, headers=headers)
        if answer.status_code != 200:
            assert answer.status_code == 422, answer.text
            raise SchemaError(answer.json()["error"])

    def batch(self, key: str = "k-1", id_: str | None = None, **changed: Any) -> None:
        try:
            path = f"/batch/doors/{quote(key, safe='')}"
        except UnicodeEncodeError:
            return self.refuse()  # no address holds it
        body = {"features": PLAIN | changed, "id": self.new() if id_ is None else id_}
        self.post(path, body)
        return None

    def rule(self, path: str, reason: str, method: str = "POST", **body: Any) -> None:
        """Send a ruling of an operator."""
        self.post(f"/pipelines/doors/{path}", body | {"reason": reason}, method)

    def infer(self, id_: str = "", path: str = "/v2/models/doors/infer", **changed: Any) -> None:
        data = {"a": 1.0, "b": 1.0, "c": "x", **changed}
        inputs = [
            {"name": n, "shape": [1], "datatype": "BYTES" if n == "c" else "FP64", "data": [v]}
            for n, v in data.items()
        ]
        self.post(path, {"inputs": inputs} | ({"id": id_} if id_ else {}))

    def rows(self, key: str = "k-1", **changed: Any) -> None:
        schema = {"k": pl.String, "a": pl.Float64, "b": pl.Float64, "c": pl.String}
        try:
            frame = pl.DataFrame([PLAIN | changed | {"k": key}], schema=schema)
        except UnicodeEncodeError:
            return self.refuse()
        chunk_of(DOORS, BATCH, frame)
        return None

    def table(self, key: str = "k-1", **changed: Any) -> None:
        kinds = {"a": float, "b": float, "c": str}
        features = [TABLE.feature(name, kind, nullable=True) for name, kind in kinds.items()]
        try:
            conform(TABLE, features, pl.DataFrame([PLAIN | changed | {"k": key}]))
        except UnicodeEncodeError:
            self.refuse()

    def ask_ada(self) -> str:
        """Return the id of a prediction about which ada holds a question."""
        id_ = self.new()
        self.bound.log.record(
            [Prediction(id=id_, features=PLAIN, output=0.5, served_at=NOW, version="1")]
        )
        with self.bound.log.sequencer() as sequencer:
            sequencer.drain()
        queue = self.bound.log.queue()
        queue.fill()
        (question,) = queue.claim("ada")
        return question.prediction_id


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path) -> Iterator[Doors]:
    home, clock = Settings(home=tmp_path_factory.mktemp("doors") / "home"), SimulatedClock(NOW)
    shutil.copy(mlflow_template, home.root / "mlflow.sqlite")
    with Bound(DOORS, home, clock) as bound:
        for row in range(20):
            at = START + timedelta(minutes=row)
            one = Prediction(id=f"p{row}", features=PLAIN | {"a": row / 10}, output=0.5, served_at=at)
            bound.log.import_history([(one, Label(prediction_id=one.id, value=row / 5, known_at=at))])
        collect(bound.log)
        train(bound)
        with Keeper(bound) as keeper:
            keeper.step()
            with (
                OperatorSocket([DOORS], home, clock),
                running(create_app((DOORS,), home, clock)) as http,
                Client(str(http.base_url)) as client,
            ):
                yield Doors(bound, http, client)


Send = Callable[[Doors, Any], object]


def label_doors(item: Callable[[Doors, Any], dict[str, Any]]) -> dict[str, Send]:
    """Return the doors by which a label may come in, made from its JSON."""

    def python(d: Doors, value: Any) -> object:
        given = {"value": 1.0, "known_at": NOW} | item(d, value)
        return d.bound.log.label([Label(**given)])

    def client(d: Doors, value: Any) -> object:
        given = {"value": 1.0} | item(d, value)
        return d.client.label(given["prediction_id"], given["value"], key=given.get("key"))

    return {
        "Label": python,
        "/labels": lambda d, v: d.post("/labels", {"value": 1.0} | item(d, v)),
        "/labels, many": lambda d, v: d.label_many({"value": 1.0} | item(d, v)),
        "Client.label": client,
    }


def feature_doors(name: str) -> dict[str, Send]:
    """Return the doors by which a feature may come in."""
    return {
        "Prediction": lambda d, v: d.record(features=PLAIN | {name: v}),
        "import_history": lambda d, v: d.history(features=PLAIN | {name: v}),
        "import of a frame": lambda d, v: d.frame(**{name: v}),
        "/predict": lambda d, v: d.post("/predict", {"features": PLAIN | {name: v}}),
        "/predict, many": lambda d, v: d.post(
            "/predict", {"predictions": [{"features": PLAIN}, {"features": PLAIN | {name: v}}]}
        ),
        "Client.predict": lambda d, v: d.client.predict(PLAIN | {name: v}),
        "/v2": lambda d, v: d.infer(**{name: v}),
        "/v2, binary": lambda d, v: d.binary(**{name: v}),
        "/v2, of a version": lambda d, v: d.infer("", VERSION, **{name: v}),
        "/batch": lambda d, v: d.batch(**{name: v}),
        "a batch's table": lambda d, v: d.rows(**{name: v}),
        "a feature table": lambda d, v: d.table(**{name: v}),
    }


EVERY_DOOR: dict[str, dict[str, Send]] = {
    "id": {
        "Prediction": lambda d, v: d.record(v),
        "import_history": lambda d, v: d.history(v),
        "import of a frame": lambda d, v: d.frame(v),
        "/predict": lambda d, v: d.post("/predict", {"features": PLAIN, "id": v}),
        "/predict, many": lambda d, v: d.post(
            "/predict", {"predictions": [{"features": PLAIN}, {"features": PLAIN, "id": v}]}
        ),
        "Client.predict": lambda d, v: d.client.predict(PLAIN, id=v),
        "/v2": lambda d, v: d.infer(v),
        "/v2, of a version": lambda d, v: d.infer(v, VERSION),
        "/batch": lambda d, v: d.batch(id_=v),
    },
    "labelled id": label_doors(lambda _, v: {"prediction_id": v}),
    "label's key": label_doors(lambda d, v: {"prediction_id": d.new(), "key": v}),
    "entity": {
        "Prediction": lambda d, v: d.record(entity={"k": v}),
        "Prediction, name": lambda d, v: d.record(entity={v: "k"}),
        "/predict": lambda d, v: d.post("/predict", {"features": PLAIN, "entity": {"k": v}}),
        "/predict, name": lambda d, v: d.post("/predict", {"features": PLAIN, "entity": {v: "k"}}),
        "Client.predict": lambda d, v: d.client.predict(PLAIN, entity={"k": v}),
        "/batch": lambda d, v: d.batch(v),
        "a batch's table": lambda d, v: d.rows(v),
        "a feature table": lambda d, v: d.table(v),
    },
    "version": {"Prediction": lambda d, v: d.record(version=v)},
    "person": {
        "LabelQueue.claim": lambda d, v: d.bound.log.queue().claim(v),
        "/queue, claim": lambda d, v: d.post("/queue/doors/claim", {"person": v}),
    },
    "who": {
        "train": lambda d, v: train(d.bound, by=v),
        "promote": lambda d, v: d.bound.registry.promote("1", by=v, reason=""),
        "route": lambda d, v: d.bound.registry.routings.put(None, by=v, reason=""),
        "keys add": lambda d, v: KeyStore(d.bound.database, d.bound.clock).add(d.new(), ["read"], by=v),
    },
    "reason": {
        "Operator.routing.set": lambda d, v: operator(d).routing.set(None, by="ada", reason=v),
        "Operator.quarantine": lambda d, v: operator(d).quarantine([], by="ada", reason=v),
        "Operator.promote": lambda d, v: operator(d).promote("1", by="ada", reason=v),
        "/pipelines, routing": lambda d, v: d.rule(
            "routing", v, "PUT", routing={"type": "champion_only"}
        ),
        "/pipelines, shadow": lambda d, v: d.rule("shadows/add", v, version="1"),
        "/pipelines, no shadow": lambda d, v: d.rule("shadows/drop", v, version="1"),
        "/pipelines, learning": lambda d, v: d.rule("learning", v, "PUT", paused=False),
        "/pipelines, quarantine": lambda d, v: d.rule("quarantine", v, spans=[{"start": 0, "stop": 1}]),
        "/pipelines, champion": lambda d, v: d.rule("champion", v, version="1"),
    },
    "text": feature_doors("c"),
    "number": feature_doors("a"),
    "nullable number": feature_doors("b"),
    "label": {
        **label_doors(lambda d, v: {"prediction_id": d.new(), "value": v}),
        "import_history": lambda d, v: d.history(value=v),
        "import of a frame": lambda d, v: d.frame(label=v),
        "LabelQueue.answer": lambda d, v: d.bound.log.queue().answer("ada", d.question_id, v),
        "/queue": lambda d, v: d.post(
            "/queue/doors/answer", {"person": "ada", "prediction_id": d.question_id, "value": v}
        ),
    },
    "output": {
        "Prediction": lambda d, v: d.record(output=v),
        "import_history": lambda d, v: d.history(output=v),
    },
}
_NAMES = ("id", "labelled id", "label's key", "entity", "version", "person", "who", "reason")
_NUMBERS = ("number", "nullable number", "label", "output")
BAD_NAMES = (
    "a\0b",
    "a\tb",
    "a\n",
    "\x1b[0m",
    "a\x7f",
    "\x85",
    "a\u2028b",
    "\u2029",
    "\ud800",
    "a\udfff",
)
GOOD_NAMES = ("ü 17", "\N{GRINNING FACE}", "\u202eabc", "注文\u3000一", "a\u200db", "a\u00a0b", "%00")
BAD_TEXTS = ("a\0", "\0", "a\ud800", "\udfff\ud800")
GOOD_TEXTS = (
    "", "dear all,\r\n\tno\v\x1b[0m\x85", "\N{GRINNING FACE}\u200d", "\u202e\u05d0", "\u2028", "\ufffe",
)  # fmt: skip
BAD_NUMBERS = (float("nan"), float("inf"), -float("inf"), 1.01 * LARGEST, -1e100, 1e200, 1.7e308)
GOOD_NUMBERS = (LARGEST, -LARGEST, -0.0, 5e-324, 1e-300)


def cases(*, good: bool) -> Iterator[Any]:
    names, texts, numbers = (
        (GOOD_NAMES, GOOD_TEXTS, GOOD_NUMBERS) if good else (BAD_NAMES, BAD_TEXTS, BAD_NUMBERS)
    )
    for kind, by in EVERY_DOOR.items():
        values = names if kind in _NAMES else texts if kind == "text" else numbers
        for door, send in by.items():
            yield pytest.param(send, values, id=f"{kind} by {door}")


def operator(d: Doors) -> Operator:
    return Operator(DOORS, d.bound.settings, d.bound.database)


def test_each_kind_has_its_values() -> None:
    assert {*_NAMES, *_NUMBERS, "text"} == set(EVERY_DOOR)


@pytest.mark.parametrize(("send", "values"), [*cases(good=False)])
def test_a_value_refused_at_one_door_is_refused_at_all(
    doors: Doors, send: Send, values: tuple[Any, ...]
) -> None:
    for value in values:
        reigns = doors.bound.registry.championship.history()
        before = doors.record_count
        with pytest.raises(HeadwaterError) as refused:
            send(doors, value)
        assert isinstance(refused.value, SchemaError), value
        assert doors.record_count == before, value
        assert doors.bound.registry.championship.history() == reigns
    assert refused.value.what


@pytest.mark.parametrize(("send", "values"), [*cases(good=True)])
def test_a_value_accepted_at_one_door_is_accepted_at_all(
    doors: Doors, send: Send, values: tuple[Any, ...]
) -> None:
    for place, value in enumerate(values):
        name = isinstance(value, str) and values is GOOD_NAMES
        send(doors, f"{value}{doors.new()}{place}" if name else value)


@pytest.mark.parametrize("kind", ["number", "nullable number", "label"])
def test_a_whole_number_that_a_float_does_not_hold_is_refused(doors: Doors, kind: str) -> None:
    typed = {"import of a frame", "/v2, binary", "a batch's table"}  # their columns here are of floats
    for door, send in EVERY_DOOR[kind].items():
        for whole in (2**53 + 1, -(2**53) - 1, 10**20):
            if door not in typed:
                with pytest.raises(SchemaError, match=r"whole number|is not|not float|refused"):
                    send(doors, whole)


def test_the_place_is_named(doors: Doors) -> None:
    items = [{"features": PLAIN}, {"features": PLAIN | {"c": "a\0"}}]
    with pytest.raises(SchemaError, match=r"predictions\[1\]: feature 'c'"):
        doors.post("/predict", {"predictions": items})
    items[1] = {"features": PLAIN, "id": "a\tb"}
    with pytest.raises(SchemaError, match=r"predictions\[1\]\.id"):
        doors.post("/predict", {"predictions": items})
    with pytest.raises(SchemaError, match=r"entity\.k="):
        doors.post("/predict", {"features": PLAIN, "entity": {"k": "a\n"}})


def test_a_text_is_read_as_it_was_sent(doors: Doors) -> None:
    for text in GOOD_TEXTS:
        id_ = doors.new()
        doors.post("/predict", {"features": PLAIN | {"c": text}, "id": id_})
        found = doors.bound.log.recorder.find(id_)
        assert found is not None
        assert found.prediction is not None
        assert found.prediction.features["c"] == text
