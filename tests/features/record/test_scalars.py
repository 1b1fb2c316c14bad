"""Scalars of NumPy and pandas at Python's doors: recorded as what they are, or refused by name."""

from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.conftest import START

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.ids import new_id
from headwater.infra.settings import Settings
from headwater.serving.client.sent import encoded
from headwater.spec.data.feature import Feature
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import HeadwaterError, NonFiniteError, SchemaError
from headwater.spec.pipeline import Pipeline

KINDS = (("x", float), ("n", int), ("b", bool), ("c", str))
PLAIN = {"x": 1.5, "n": 3, "b": True, "c": "red"}
FLOATS = [np.float16, np.float32, np.float64]
INTS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
NONE = [pd.NA, pd.NaT, None]


@pytest.fixture
def log(pipeline: Pipeline, settings: Settings, clock: SimulatedClock) -> Any:
    features = tuple(Feature(name, kind, nullable=True) for name, kind in KINDS)
    log = FeatureLog(replace(pipeline, features=features), settings, clock)
    yield log
    log.close()
    log.database.close()


def recorded(log: FeatureLog, **changed: Any) -> Prediction:
    """Record a prediction, and read it again."""
    given_ = {"id": new_id(), "features": PLAIN, "output": 0.5, "served_at": START} | changed
    assert log.record([Prediction(**given_)]) == 1
    found = log.recorder.find(given_["id"])
    assert found is not None
    assert found.prediction is not None
    return found.prediction


def quiet(*values: st.SearchStrategy[Any]) -> Any:
    checks = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    return lambda test: checks(given(*values)(test))


@quiet(st.sampled_from(FLOATS), st.floats(-6e4, 6e4, width=16))
def test_a_float_of_any_width_is_its_number(log: FeatureLog, kind: Any, number: float) -> None:
    value = kind(number)
    assert recorded(log, features=PLAIN | {"x": value}).features["x"] == float(value)


@quiet(st.sampled_from(INTS), st.integers(0, 127))
def test_an_integer_of_any_width_is_recorded(log: FeatureLog, kind: Any, number: int) -> None:
    features = recorded(log, features=PLAIN | {"n": kind(number), "x": kind(number)}).features
    assert (features["n"], features["x"]) == (number, float(number))
    assert type(features["n"]) is int


def test_an_integer_beyond_64_bits_is_refused(log: FeatureLog) -> None:
    with pytest.raises(SchemaError, match="64 bits"):
        recorded(log, features=PLAIN | {"n": np.uint64(2**63)})


@pytest.mark.parametrize("missing", NONE, ids=repr)
@pytest.mark.parametrize("name", PLAIN)
def test_what_is_missing_in_pandas_is_null(log: FeatureLog, name: str, missing: Any) -> None:
    assert recorded(log, features=PLAIN | {name: missing}).features[name] is None


def test_truths_and_texts_of_numpy_are_recorded(log: FeatureLog) -> None:
    features = recorded(log, features=PLAIN | {"b": np.False_, "c": np.str_("blau")}).features
    assert (features["b"], features["c"]) == (False, "blau")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("b", np.int64(2)),
        ("b", np.float64(0.5)),
        ("n", np.float64(3.5)),
        ("n", np.float64(2**53 + 2)),
        ("n", 2.0**53),
        ("x", np.int64(2**53 + 1)),
        ("n", np.True_),
        ("x", np.True_),
        ("x", np.str_("1.5")),
        ("c", np.int64(2139)),
        ("c", np.bytes_(b"red")),
        ("x", np.complex128(1)),
        ("x", np.array(1.5)),
        ("n", np.datetime64("2024-01-01")),
        ("c", pd.Timestamp("2024-01-01", tz="UTC")),
    ],
    ids=lambda one: f"{type(one).__name__} {one}",
)
def test_a_scalar_of_another_type_is_refused_by_name(log: FeatureLog, name: str, value: Any) -> None:
    with pytest.raises(SchemaError, match=rf"\b{name}\b") as refused:
        recorded(log, features=PLAIN | {name: value})
    assert refused.value.hint


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("b", np.int64(1), True),
        ("b", 0, False),
        ("b", np.float64(1.0), True),
        ("n", np.float32(3.0), 3),
        ("n", 2.0**53 - 1, 2**53 - 1),
        ("x", 2**53, 2.0**53),
        ("x", Decimal("1.5"), 1.5),
        ("n", Decimal("3.0"), 3),
        ("b", Decimal(1), True),
    ],
    ids=lambda one: f"{type(one).__name__} {one}",
)
def test_a_value_of_another_type_that_loses_nothing_is_taken(
    log: FeatureLog, name: str, value: Any, wanted: Any
) -> None:
    found = recorded(log, features=PLAIN | {name: value}).features[name]
    assert (found, type(found)) == (wanted, type(wanted))


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused(log: FeatureLog, kind: Any, number: float) -> None:
    with pytest.raises(NonFiniteError):
        recorded(log, features=PLAIN | {"x": kind(number)})
    with pytest.raises(HeadwaterError):
        recorded(log, output=kind(number))


@pytest.mark.parametrize("kind", FLOATS)
def test_an_output_of_any_width_is_recorded(log: FeatureLog, kind: Any) -> None:
    assert recorded(log, output=kind(0.25)).output == 0.25


def test_chances_by_class_are_recorded(pipeline: Pipeline, settings: Settings, clock: Any) -> None:
    log = FeatureLog(
        replace(pipeline, task="multiclass", features=(Feature("x", float),)), settings, clock
    )
    shares = dict(zip(["a", "b"], np.array([0.25, 0.75], np.float32), strict=True))
    try:
        assert recorded(log, features={"x": 1.0}, output=shares).output == {"a": 0.25, "b": 0.75}
    finally:
        log.close()
        log.database.close()


@pytest.mark.parametrize("hours", [0, 5])
def test_a_timestamp_of_pandas_is_its_moment(log: FeatureLog, hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    at = pd.Timestamp("2024-01-01T05:15:00.123456789").tz_localize(zone)
    assert recorded(log, served_at=at).served_at == at.to_pydatetime(warn=False)
    assert log.label([Label(prediction_id="p", value=np.True_, known_at=at)]) == 1
    found = log.recorder.find("p")
    assert found is not None
    assert (found.labels[0].label.value, found.labels[0].label.known_at) == (True, at.floor("us"))


@pytest.mark.parametrize("at", [pd.Timestamp("2024-01-01"), pd.NaT, np.datetime64("2024-01-01"), None])
def test_a_time_without_a_zone_is_refused(log: FeatureLog, at: Any) -> None:
    with pytest.raises(SchemaError, match="zone"):
        recorded(log, served_at=at)
    with pytest.raises(SchemaError, match="zone"):
        log.label([Label(prediction_id="p", value=True, known_at=at)])


def test_what_a_client_sends_is_the_same() -> None:
    features = {"x": np.float32(1.5), "n": np.int64(3), "b": np.bool_(True), "c": pd.NA}
    body = {"id": "p", "features": features}
    plain = b'{"id":"p","features":{"x":1.5,"n":3,"b":true,"c":null}}'
    assert encoded(body) == plain
    assert encoded({"predictions": [body]}) == b'{"predictions":[' + plain + b"]}"
    assert encoded({"value": np.float64(0.5)}) == b'{"value":0.5}'
    with pytest.raises(NonFiniteError):
        encoded({"features": {"x": np.float32("nan")}})


def test_ids_and_entity_keys_of_numpy_are_text(log: FeatureLog) -> None:
    found = recorded(log, id=np.str_("order-17"), entity={"customer": np.str_("c-1")})
    assert (found.id, found.entity) == ("order-17", {"customer": "c-1"})
    label = Label(prediction_id=np.str_("order-17"), value=True, known_at=START)
    assert log.label([label]) == 1
    assert log.label([replace(label, prediction_id="order-17")]) == 0


@pytest.mark.parametrize("features", [[], None, 3, "x"])
def test_features_that_are_no_mapping_are_refused(log: FeatureLog, features: Any) -> None:
    with pytest.raises(SchemaError):
        recorded(log, features=features)


LOST = [b"abc", bytearray(b"x"), Decimal("1.5"), START, START.date(), timedelta(1), UUID(int=1), [1], {}]


@pytest.mark.parametrize("value", LOST, ids=repr)
@pytest.mark.parametrize("part", ["features", "entity"])
def test_a_client_sends_no_value_that_json_would_change(part: str, value: Any) -> None:
    with pytest.raises(SchemaError, match=rf"{part}.c"):
        encoded({part: {"c": value}})
    with pytest.raises(SchemaError, match="value"):
        encoded({"labels": [{"prediction_id": "p", "value": value}]})
