"""Records of each task come back as they were recorded, from the database and from the archive."""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import polars as pl
import pytest
from deltalake import DeltaTable
from tests.features.records import NOW, drain

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.spec.data.feature import Feature
from headwater.spec.data.records import Label, Prediction
from headwater.spec.data.values import LARGEST
from headwater.spec.errors import HeadwaterError, NonFiniteError, SchemaError
from headwater.spec.pipeline import Pipeline

FEATURES = (
    Feature("amount", float, nullable=True),
    Feature("count", int, nullable=True),
    Feature("city", str, nullable=True),
    Feature("new", bool, nullable=True),
)
ROWS: list[dict[str, Any]] = [
    {"amount": 1.5, "count": 2**63 - 1, "city": "Zürich", "new": True},
    {"amount": -0.0, "count": -(2**63), "city": "", "new": False},
    {"amount": 5e-324, "count": 0, "city": 'a"b\\c\n\t,;', "new": None},
    {"amount": LARGEST, "count": None, "city": "\N{WATER WAVE}", "new": True},
    {"amount": None, "count": None, "city": None, "new": None},
]
ANSWERS: dict[str, tuple[list[Any], list[Any]]] = {
    "binary": ([0.0, 1.0, 0.5, 0.1, 1e-300], [True, False, True, False, True]),
    "multiclass": (
        [{"a": 0.1, "b": 0.9}, {"a": 1.0}, {}, {"ü": 0.5}, {"b": 0.2, "a": 0.8}],
        ["a", "never seen", "", "ü", "b"],
    ),
    "regression": ([1.0, -2.5, 0.1, LARGEST, 0.0], [0.1, -LARGEST, 3.0, 5e-324, 0.30000000000000004]),
}
TIMES = [NOW + timedelta(microseconds=n) for n in (0, 1, 10, 999_999, 1_000_000)]


@pytest.fixture
def log(
    request: Any, pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> Iterator[FeatureLog]:
    formed = msgspec.structs.replace(pipeline, task=request.param, features=FEATURES)
    opened = FeatureLog(formed, settings, clock)
    yield opened
    opened.close()
    opened.database.close()


each_task = pytest.mark.parametrize("log", ANSWERS, indirect=True)


def predict(id_: str, features: dict[str, Any], output: Any, **changed: Any) -> Prediction:
    return Prediction(id=id_, features=features, output=output, **({"served_at": NOW} | changed))


def fill(log: FeatureLog) -> pl.DataFrame:
    outputs, labels = ANSWERS[log.pipeline.task]
    log.record(
        [
            predict(
                str(i),
                ROWS[i],
                outputs[i],
                served_at=TIMES[i],
                entity={"customer": f"c-{i}"},
                ages_s={"spending": i / 7} if i else {},
            )
            for i in range(len(ROWS))
        ]
    )
    log.label(
        [
            Label(prediction_id=str(i), value=labels[i], known_at=TIMES[-1 - i], source="human")
            for i in range(len(ROWS))
        ]
    )
    assert drain(log) == len(ROWS)
    return log.examples()


@each_task
def test_examples_hold_what_was_recorded(log: FeatureLog) -> None:
    found = fill(log)
    outputs, labels = ANSWERS[log.pipeline.task]
    assert found["features"].to_list() == ROWS
    assert found["label"].to_list() == labels
    assert found["served_at"].to_list() == TIMES
    assert found["known_at"].to_list() == TIMES[::-1]
    assert found["source"].unique().to_list() == ["human"]
    assert [msgspec.json.decode(text) for text in found["entity"]] == [
        {"customer": f"c-{i}"} for i in range(len(ROWS))
    ]
    ages = [None if text is None else msgspec.json.decode(text) for text in found["ages_s"]]
    assert ages == [None, *({"spending": i / 7} for i in range(1, len(ROWS)))]
    given = found["output"].to_list()
    assert [msgspec.json.decode(one) if isinstance(one, str) else one for one in given] == outputs


@each_task
def test_every_range_is_the_same_from_the_archive(log: FeatureLog) -> None:
    fill(log)
    ranges = [(start, stop) for stop in range(len(ROWS) + 1) for start in range(stop + 1)]
    before = {span: log.examples(*span) for span in ranges}
    assert log.collect() == len(ROWS)
    for span in ranges:
        after = log.examples(*span)
        assert after.schema == before[span].schema
        assert after.equals(before[span])


@pytest.mark.parametrize("log", ["binary"], indirect=True)
def test_an_archive_from_before_ages_is_read(log: FeatureLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.record([predict("old", ROWS[0], 0.5)])
    log.label([Label(prediction_id="old", value=True, known_at=NOW)])
    drain(log)
    with monkeypatch.context() as before:
        for module, name in (("read.same_rows", "EXAMPLE"), ("read.frames", "PREDICTION")):
            columns = getattr(sys.modules[f"headwater.features.{module}"], name)
            kept = tuple(column for column in columns if column != "ages_s")
            before.setattr(f"headwater.features.{module}.{name}", kept)
        log.collect()
    assert "ages_s" not in DeltaTable(log.archive["examples"].address).schema().to_json()
    assert log.examples()["ages_s"].to_list() == [None]
    log.record([predict("new", ROWS[1], 0.5, ages_s={"spending": 2.5})])
    log.label([Label(prediction_id="new", value=True, known_at=NOW)])
    drain(log)
    expected = log.examples()
    log.collect()
    assert log.examples().equals(expected)
    assert expected["ages_s"].to_list() == [None, '{"spending":2.5}']


@pytest.mark.parametrize("ages_s", [{"t": -1.0}, {"t": float("nan")}, {"t": "old"}, {1: 1.0}, [1.0]])
def test_a_wrong_age_is_refused(open_log: Callable[[], FeatureLog], ages_s: Any) -> None:
    with pytest.raises(SchemaError, match="ages_s"):
        open_log().record([predict("p", {"x": 1.0, "city": None}, 0.5, ages_s=ages_s)])


@each_task
def test_selected_columns_equal_those_of_the_whole_frame(log: FeatureLog) -> None:
    whole = fill(log)
    selected = ("features", "label", "supersedes", "output")
    assert log.examples(columns=selected).equals(whole.select(selected))
    log.collect()
    assert log.examples(columns=selected).equals(whole.select(selected))


WRONG = [
    ("binary", 0.5, 2, SchemaError),
    ("binary", 0.5, "True", SchemaError),
    ("binary", {"a": 1.0}, True, SchemaError),
    ("binary", True, True, SchemaError),
    ("binary", float("nan"), True, NonFiniteError),
    ("multiclass", 0.5, "a", SchemaError),
    ("multiclass", {"a": "1"}, "a", SchemaError),
    ("multiclass", {1: 1.0}, "a", SchemaError),
    ("multiclass", {"a": float("inf")}, "a", NonFiniteError),
    ("multiclass", {"a": 1.0}, True, SchemaError),
    ("multiclass", {"a": 1.0}, None, SchemaError),
    ("regression", "1", 1.0, SchemaError),
    ("regression", None, 1.0, SchemaError),
    ("regression", float("-inf"), 1.0, NonFiniteError),
    ("regression", 1.0, True, SchemaError),
    ("regression", 1.0, "1", SchemaError),
    ("regression", 1.0, float("nan"), NonFiniteError),
    ("regression", 1.0, float("inf"), NonFiniteError),
]


@pytest.mark.parametrize(("log", "output", "value", "error"), WRONG, indirect=["log"])
def test_a_record_of_another_task_keeps_nothing_of_its_batch(
    log: FeatureLog, output: Any, value: Any, error: type[HeadwaterError]
) -> None:
    outputs, labels = ANSWERS[log.pipeline.task]

    def send() -> None:
        with log.one_sync():
            log.record([predict("good", ROWS[0], outputs[0]), predict("bad", ROWS[0], output)])
            log.label(
                [
                    Label(prediction_id="good", value=labels[0], known_at=NOW),
                    Label(prediction_id="bad", value=value, known_at=NOW),
                ]
            )

    with pytest.raises(error, match="'bad'") as refused:
        send()
    assert refused.value.hint
    assert log.counts().unsequenced == 0


@pytest.mark.parametrize("log", ["binary"], indirect=True)
@pytest.mark.parametrize("name", ["amount", "count", "city", "new"])
@pytest.mark.parametrize("value", [[1], {"a": 1}, datetime(2024, 1, 1, tzinfo=UTC), b"1"])
def test_a_feature_of_no_known_type_is_named(log: FeatureLog, name: str, value: Any) -> None:
    with pytest.raises(SchemaError, match=rf"'odd': {name}: expected"):
        log.record([predict("odd", ROWS[0] | {name: value}, 0.5)])
    assert log.counts().unsequenced == 0
