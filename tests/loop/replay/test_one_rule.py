"""One value, each declared type, each way into the log: the same record, or a refusal by all."""

import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import START

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.replay.import_history import preview_import
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import HeadwaterError
from headwater.spec.pipeline import Pipeline, Task
from headwater.spec.updating.update import Stateful

KNOWN = START + timedelta(hours=1)
FEATURES = {"float": "x", "int": "n", "bool": "b", "str": "c"}
TASKS: dict[str, Task] = {"float": "regression", "bool": "binary", "str": "multiclass"}
BIG = 2**53
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.integers(-(2**64), 2**64),
    st.sampled_from([BIG, BIG + 1, -BIG - 1, 2**63, -(2**63), 10**20]),
    st.floats(),
    st.integers(-5, 5).map(float),
    st.sampled_from([float(BIG), BIG + 2.0, 1e38, math.nextafter(1e38, 2e38), -0.0]),
    st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8),
    st.sampled_from(["1", "true", "1.0", "NA", "", "02139", "a\0b"]),
)
REFUSED = "refused"


def never_made() -> object:
    """Stand for a model: nothing is learned here."""
    raise NotImplementedError


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Task, FeatureLog]]:
    home = Settings(home=tmp_path_factory.mktemp("one-rule") / "home")
    clock = SimulatedClock(KNOWN)
    features = tuple(Feature(name, kind, nullable=True) for kind, name in FEATURES.items())  # type: ignore[arg-type] # dtypes
    found: dict[Task, FeatureLog] = {}
    for task in TASKS.values():
        declared = Pipeline(
            name=f"toy-{task}",
            task=task,
            features=features,
            label=LabelRule(wait="1d"),
            model=never_made,
            update=Stateful(),
        )
        found[task] = FeatureLog(declared, home, clock)
    yield found
    for log in found.values():
        log.close()
        log.database.close()


def told(make: Callable[[], Any]) -> Any:
    """Return the value with its type, or that it is refused."""
    try:
        value = make()
    except HeadwaterError:
        return REFUSED
    return (type(value).__name__, value)


def sources(value: Any, name: str, folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield tables that hold the value in a column; each kind of table that can say it."""
    rows: dict[str, Any] = dict.fromkeys(FEATURES.values())
    rows |= {"id": "p", "served_at": START, "known_at": KNOWN, "label": None} | {name: value}
    kinds = {bool: pl.Boolean, float: pl.Float64, str: pl.String}
    frame = pl.DataFrame({column: [cell] for column, cell in rows.items() if column != name})
    if type(value) in kinds or value is None or -(2**63) <= value < 2**64:
        kind = pl.Int64 if type(value) is int and value < 2**63 else pl.UInt64
        frame = frame.with_columns(pl.Series(name, [value], dtype=kinds.get(type(value), kind)))
        yield "polars", frame
        frame.write_parquet(folder / "t.parquet")
        yield "parquet", folder / "t.parquet"
        if value == value:  # noqa: PLR0124 - NaN is what is missing in pandas
            yield "pandas", frame.to_pandas()
            yield "pandas, arrow", frame.to_pandas(use_pyarrow_extension_array=True)
    text = isinstance(value, str)
    declared = {"label": None, **{column: kind for kind, column in FEATURES.items()}}[name]
    if name != "label" and text == (declared == "str"):
        written = '"' + value.replace('"', '""') + '"' if text else "" if value is None else str(value)
        cells = {
            **dict.fromkeys(rows, ""),
            "id": "p",
            "served_at": "2024-01-01T00:00:00Z",
            name: written,
        }
        (folder / "t.csv").write_text(f"{','.join(cells)}\n{','.join(cells.values())}\n")
        yield "csv", folder / "t.csv"


def scalars(value: Any) -> list[Any]:
    kinds: dict[type, Any] = {float: np.float64, bool: np.bool_}
    fits = type(value) is int and -(2**63) <= value < 2**63
    more = [kinds[type(value)](value)] if type(value) in kinds else [np.int64(value)] if fits else []
    return [value, *more, *([pd.NA] if value is None else [])]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES, st.sampled_from([*FEATURES]))
def test_a_feature_is_the_same_however_it_comes(
    logs: dict[Task, FeatureLog], tmp_path: Path, value: Any, kind: str
) -> None:
    log, name = logs["regression"], FEATURES[kind]

    def recorded(given_: Any) -> Any:
        features = dict.fromkeys(FEATURES.values()) | {name: given_}
        one = Prediction(id="p", features=features, output=0.5, served_at=START)
        entry = log.recorder.prediction(one)
        return msgspec.json.decode(entry.payload)["features"][name]

    found = {f"python {type(one)}": told(lambda one=one: recorded(one)) for one in scalars(value)}
    for door, source in sources(value, name, tmp_path):
        found[door] = told(lambda source=source: preview_import(log, source).first[0][0].features[name])
    assert len(set(found.values())) == 1, found


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES.filter(lambda value: value is not None), st.sampled_from([*TASKS]))
def test_a_label_is_the_same_however_it_comes(
    logs: dict[Task, FeatureLog], tmp_path: Path, value: Any, kind: str
) -> None:
    log = logs[TASKS[kind]]

    def labelled(given_: Any) -> Any:
        one = Label(prediction_id="p", value=given_, known_at=KNOWN)
        return msgspec.json.decode(log.recorder.label(one).payload)["value"]

    def imported(source: Any) -> Any:
        label = preview_import(log, source).first[0][1]
        assert label is not None
        return label.value

    found = {f"python {type(one)}": told(lambda one=one: labelled(one)) for one in scalars(value)}
    for door, source in sources(value, "label", tmp_path):
        found[door] = told(lambda source=source: imported(source))
    assert len(set(found.values())) == 1, found
