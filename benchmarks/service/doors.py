"""One value at all doors: the same record, or a refusal by each."""

import asyncio
import json
import math
import random
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np
import pandas as pd
import polars as pl
from starlette.types import ASGIApp

from benchmarks.claim import Outcome, at_least, fresh_home, mlflow_database
from benchmarks.models import mean, prior
from benchmarks.service.load import server
from headwater.features.record.encoder import RecordEncoder, open_inbox
from headwater.features.values.column_values import Kind, fit
from headwater.features.values.table_file import read_table
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.process.app import create_app
from headwater.spec.data.feature import Dtype, Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction, Recorded
from headwater.spec.errors import HeadwaterError
from headwater.spec.pipeline import Pipeline, Task
from headwater.spec.updating.update import Stateful

__all__ = ["PIPELINES", "REFUSED", "compared", "differing", "drawn_value", "measure"]

_VALUES, _SHORT_VALUES = 20_000, 400
_TOGETHER = 50
_NOW = datetime(2024, 1, 2, tzinfo=UTC)
_EDGE = 2**53
REFUSED = "refused"
"""The outcome of a door that refuses a value."""

_FEATURES: dict[Dtype, str] = {"float": "x", "int": "n", "bool": "b", "str": "c"}
_TASKS: dict[Task, Kind] = {"binary": "bool", "regression": "float", "multiclass": "str"}
_TYPES: dict[type, tuple[str, str]] = {
    bool: ("BOOL", "?"),
    int: ("INT64", "<q"),
    float: ("FP64", "<d"),
    str: ("BYTES", ""),
}
_WORDS = (
    "true",
    "1",
    "02139",
    "",
    " ",
    "nan",
    "NA",
    "1.5",
    "é",
    "\N{SNOWMAN}",
    "a\tb",
    "a,b",
    'a"b',
    "a\0b",
)


PIPELINES: dict[Task, Pipeline] = {
    task: Pipeline(
        name=f"doors-{task}",
        task=task,
        features=tuple(Feature(name, dtype, nullable=True) for dtype, name in _FEATURES.items()),
        label=LabelRule(wait="1d"),
        model=mean if task == "regression" else prior,
        update=Stateful(),
    )
    for task in _TASKS
}
Answers = dict[str, object]
"""What came of a value, by door: the recorded value, or :data:`REFUSED`."""


def measure(*, short: bool) -> Outcome:
    """Send 20,000 values by each door as a feature of each declared type, and as a label of each task.

    ``ratio`` is the share of values of which all doors make the same. A door takes part where it can say
    the value: JSON has no NaN, a CSV does not tell the text 1 from the number, pandas has no NaN that is
    not missing, a binary tensor no null and no number beyond its type.
    """
    drawn = random.Random(20)
    values = [drawn_value(drawn) for _ in range(_SHORT_VALUES if short else _VALUES)]
    found = compared(values)
    wrong = differing(found)
    some = [(repr(values[row])[:40], kind, answers) for row, kind, answers in wrong[:5]]
    return at_least(
        1 - len({row for row, _, _ in wrong}) / len(values),
        1.0,
        values=len(values),
        answers=sum(len(answers) for _, _, answers in found),
        refused=sum(REFUSED in answers.values() for _, _, answers in found),
        differ=len(wrong),
        some=repr(some),
    )


def drawn_value(drawn: random.Random) -> object:
    """Draw a value: of each type, ordinary or at an edge."""
    sign = drawn.choice((1, -1))
    near = drawn.choice((0, 1, 2, 3, _EDGE, 2**63, 2**64, 10**20)) + drawn.randrange(-2, 3)
    return drawn.choice(
        (
            lambda: None,
            lambda: drawn.random() < 0.5,
            lambda: drawn.randrange(2),
            lambda: sign * near,
            lambda: drawn.randrange(-(2**63), 2**63),
            lambda: float(sign * near),
            lambda: drawn.gauss(0, 1),
            lambda: float(np.float32(drawn.gauss(0, 1))),
            lambda: sign * drawn.choice((1e38, math.nextafter(1e38, math.inf), 1e300, 5e-324, 0.0, 0.5)),
            lambda: drawn.choice((math.nan, math.inf, -math.inf)),
            lambda: drawn.choice(_WORDS),
            lambda: "".join(chr(drawn.randrange(1, 0x2FFF)) for _ in range(drawn.randrange(1, 9))),
        )
    )()


def differing(found: Sequence[tuple[int, str, Answers]]) -> list[tuple[int, str, Answers]]:
    """Return those of which the doors do not make the same."""
    return [one for one in found if len({(type(a), a) for a in one[2].values()}) > 1]


def compared(values: Sequence[object]) -> list[tuple[int, str, Answers]]:
    """Send values by all doors.

    Returns
    -------
    list of tuple
        Place of the value, what it was for, and what came of it by door.
    """
    found: dict[tuple[int, str], Answers] = {}
    with fresh_home(mlflow_database()) as settings:
        for pipeline in PIPELINES.values():
            _publish(pipeline, settings)
        with closing(open_inbox(PIPELINES["binary"], settings)) as inbox:
            recorders = {
                task: RecordEncoder(pipeline, inbox, SimulatedClock(_NOW))
                for task, pipeline in PIPELINES.items()
            }
            for name, kind, recorded in _roles(recorders):
                for door, outcomes in _columns(values, kind).items():
                    for row, fitted in outcomes.items():
                        answer = fitted if fitted is REFUSED else recorded(fitted)
                        found.setdefault((row, name), {})[door] = answer
                for row, value in enumerate(values):
                    for door, given in _scalars(value).items():
                        found.setdefault((row, name), {})[door] = recorded(given)
        for (row, name), answers in _http(values, settings).items():
            found[row, name] |= answers
    return [(row, name, answers) for (row, name), answers in sorted(found.items())]


def _roles(
    recorders: Mapping[Task, RecordEncoder],
) -> Iterator[tuple[str, Kind, Callable[[Any], object]]]:
    """Yield what a value may be for, the declared kind, and the way into the log from Python."""

    def feature(name: str, value: Any) -> object:
        features = dict.fromkeys(_FEATURES.values()) | {name: value}
        prediction = Prediction(id="p", features=features, output=0.5, served_at=_NOW)
        return _outcome(lambda: recorders["binary"].prediction(prediction).payload, "features", name)

    def label(task: Task, value: Any) -> object:
        if value is None:
            return None  # no label yet
        made = Label(prediction_id="p", value=value, known_at=_NOW)
        return _outcome(lambda: recorders[task].label(made).payload, "value")

    for dtype, name in _FEATURES.items():
        yield f"feature {dtype}", dtype, lambda value, name=name: feature(name, value)
    for task, kind in _TASKS.items():
        yield f"label {task}", kind, lambda value, task=task: label(task, value)


def _outcome(made: Callable[[], bytes], *path: str) -> object:
    try:
        found = msgspec.json.decode(made())
    except HeadwaterError:
        return REFUSED
    for name in path:
        found = found[name]
    return found


def _scalars(value: object) -> dict[str, object]:
    """Return the values of Python's door: as it is, and as NumPy's."""
    given = {"python": value}
    if isinstance(value, float):
        given["numpy"] = np.float64(value)
    elif isinstance(value, bool):
        given["numpy"] = np.bool_(value)
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        given["numpy"] = np.int64(value)
    return given


def _columns(values: Sequence[object], kind: Kind) -> dict[str, dict[int, object]]:
    """Read the values from columns, one a type, of each kind of table; misfits are refused."""
    found: dict[str, dict[int, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype, rows in _by_type(values).items():
            column = pl.Series("v", [values[row] for row in rows], dtype=dtype, strict=True)
            path = Path(folder) / "t.parquet"
            column.to_frame().write_parquet(path)
            sources = {"polars": column.to_frame(), "parquet": path}
            sources["pandas"] = pd.DataFrame({"v": column.to_pandas()})
            for door, source in sources.items():
                frame = read_table(source, ["v"]).frame
                _take(found.setdefault(door, {}), rows, fit(frame["v"], kind).values, column)
        csv = Path(folder) / "t.csv"
        rows = [row for row, value in enumerate(values) if _is_written(value, kind)]
        csv.write_bytes("".join(["v,w\n", *(f"{_written(values[row])},w\n" for row in rows)]).encode())
        texts = read_table(csv, ["v"]).frame["v"]
        given = pl.Series([values[row] for row in rows], dtype=pl.Object)
        _take(found.setdefault("csv", {}), rows, fit(texts, kind, text=True).values, given)
    for row, value in enumerate(values):
        if isinstance(value, float) and math.isnan(value):
            found["pandas"].pop(row, None)
    return found


def _take(found: dict[int, object], rows: Sequence[int], fitted: pl.Series, given: pl.Series) -> None:
    for row, value, was in zip(rows, fitted.to_list(), given.to_list(), strict=True):
        found[row] = REFUSED if value is None and was is not None else value


def _by_type(values: Sequence[object]) -> dict[pl.DataType, list[int]]:
    found: dict[pl.DataType, list[int]] = {}
    for row, value in enumerate(values):
        kinds: dict[type, pl.DataType] = {
            bool: pl.Boolean(), float: pl.Float64(), str: pl.String(), type(None): pl.Float64()
        }  # fmt: skip
        if isinstance(value, int) and not isinstance(value, bool):
            if -(2**63) <= value < 2**63:
                found.setdefault(pl.Int64(), []).append(row)
            elif 0 <= value < 2**64:
                found.setdefault(pl.UInt64(), []).append(row)
        else:
            found.setdefault(kinds[type(value)], []).append(row)
    return found


def _is_written(value: object, kind: Kind) -> bool:
    """Return whether a CSV says this value, and no other: text is text there, and numbers are not."""
    return value is None or isinstance(value, str) == (kind == "str")


def _written(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _publish(pipeline: Pipeline, settings: Settings) -> None:
    """Train a version, and publish it to the workers."""
    value = {"binary": True, "regression": 1.0, "multiclass": "a"}[pipeline.task]
    features = dict.fromkeys(_FEATURES.values())
    output: Any = {} if pipeline.task == "multiclass" else 0.5
    with Bound(pipeline, settings, SimulatedClock(_NOW)) as bound:
        bound.log.record([Prediction(id="a", features=features, output=output, served_at=_NOW)])
        bound.log.label([Label(prediction_id="a", value=value, known_at=_NOW)])
        collect(bound.log)
        train(bound)
        with Keeper(bound) as keeper:
            keeper.step()


def _http(values: Sequence[object], settings: Settings) -> dict[tuple[int, str], Answers]:
    with server(_all, settings) as to:
        return asyncio.run(_over_http(values, settings, to.port))


def _all(settings: Settings) -> ASGIApp:
    return create_app(tuple(PIPELINES.values()), settings)


class _Request(NamedTuple):
    """A request that carries a value: through which door, for what, and under which id."""

    door: str
    name: str
    task: Task
    id: str
    path: str
    body: bytes
    headers: dict[str, str]


async def _over_http(
    values: Sequence[object], settings: Settings, port: int
) -> dict[tuple[int, str], Answers]:
    """Send the values by the service's doors; read what was recorded from the inbox."""
    found: dict[tuple[int, str], Answers] = {}
    recorders = {
        task: RecordEncoder(pipeline, open_inbox(pipeline, settings), SimulatedClock(_NOW))
        for task, pipeline in PIPELINES.items()
    }
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        async def send(row: int, value: object) -> None:
            for one in _requests(row, value):
                answer = await client.post(one.path, content=one.body, headers=one.headers)
                if answer.status_code not in {200, 400, 422}:
                    raise RuntimeError(f"{one}: {answer.status_code} {answer.text}")
                stored = recorders[one.task].find(one.id) if answer.status_code == 200 else None
                recorded = REFUSED if stored is None else _stored(stored, one.name)
                found.setdefault((row, one.name), {})[one.door] = recorded

        for start in range(0, len(values), _TOGETHER):
            some = enumerate(values[start : start + _TOGETHER], start)
            await asyncio.gather(*(send(row, value) for row, value in some))
    for recorder in recorders.values():
        recorder.inbox.close()
    return found


def _stored(stored: Recorded, name: str) -> object:
    what, _, kind = name.partition(" ")
    if what == "label":
        return stored.labels[0].label.value
    return None if stored.prediction is None else stored.prediction.features[_FEATURES[kind]]  # type: ignore[index] # a dtype


def _requests(row: int, value: object) -> Iterator[_Request]:
    nothing: dict[str, object] = dict.fromkeys(_FEATURES.values())
    sent = {"content-type": "application/json"}
    for dtype, name in _FEATURES.items():
        id_ = f"{row}-{dtype}"
        body = {"pipeline": "doors-binary", "id": f"{id_}-http", "features": nothing | {name: value}}
        yield _Request(
            "http", f"feature {dtype}", "binary", f"{id_}-http", "/predict", _json(body), sent
        )
        for door, (body_, headers) in _tensors(f"{id_}", name, value).items():
            path = "/v2/models/doors-binary/infer"
            yield _Request(
                door, f"feature {dtype}", "binary", f"{id_}-{door}", path, body_, sent | headers
            )
    if value is not None:
        for task in _TASKS:
            id_ = f"{row}-{task}"
            label = {"pipeline": f"doors-{task}", "prediction_id": id_, "value": value}
            yield _Request("http", f"label {task}", task, id_, "/labels", _json(label), sent)


def _tensors(id_: str, name: str, value: object) -> dict[str, tuple[bytes, dict[str, str]]]:
    """Return the bodies of /v2: the value in JSON, and as bytes if its type has them."""
    others = [
        {"name": other, "shape": [1], "datatype": "BYTES", "data": [None]}
        for other in _FEATURES.values()
        if other != name
    ]
    datatype, form = _TYPES.get(type(value), ("BYTES", ""))
    tensor = {"name": name, "shape": [1], "datatype": datatype}
    found = {"v2": (_json({"id": f"{id_}-v2", "inputs": [*others, tensor | {"data": [value]}]}), {})}
    packed = _packed(value, form)
    if packed is not None:
        tensor["parameters"] = {"binary_data_size": len(packed)}
        head = _json({"id": f"{id_}-v2 binary", "inputs": [*others, tensor]})
        found["v2 binary"] = (head + packed, {"inference-header-content-length": str(len(head))})
    return found


def _packed(value: object, form: str) -> bytes | None:
    if isinstance(value, str):
        text = value.encode()
        return struct.pack("<I", len(text)) + text
    if value is None or (form == "<q" and isinstance(value, int) and not -(2**63) <= value < 2**63):
        return None
    return struct.pack(form, value)


def _json(body: object) -> bytes:
    return json.dumps(body).encode()
