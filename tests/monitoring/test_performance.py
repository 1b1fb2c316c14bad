"""The table of performance: what a label may change in it, and what not."""

import json
from collections.abc import Callable
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace
from polars.testing import assert_frame_equal
from sklearn.metrics import roc_auc_score
from tests.cli.conftest import TOY
from tests.cli.toys import toy
from tests.conftest import START
from tests.features.records import drain

from headwater.cli import main
from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.settings import settings as read_settings
from headwater.infra.store.open_storage import open_storage
from headwater.monitoring.measure.scores import score, score_error
from headwater.monitoring.measure.windows import windows
from headwater.monitoring.performance.error_rise import errors_rose
from headwater.monitoring.performance.performance_row import newest_rows
from headwater.monitoring.performance.performance_table import read_performance, write_performance
from headwater.monitoring.performance.window_performance import measure_performance, performance_of
from headwater.spec.data.records import Label, Prediction, Role
from headwater.spec.duration import duration
from headwater.spec.pipeline import METRICS, Metric, Pipeline
from headwater.spec.updating.monitoring import Monitoring

HOUR = timedelta(hours=1)
RULE = Monitoring(window="1h", least=50, slices=("city",))

Frame = pl.DataFrame


@pytest.fixture
def pipeline(pipeline: Pipeline) -> Pipeline:
    return replace(pipeline, monitoring=RULE)


def hour(
    log: FeatureLog, number: int, rows: int = 120, version: str = "1", role: Role = "champion"
) -> list[Prediction]:
    """Serve predictions half past an hour, whose outputs say how likely a positive label is."""
    clock = log.clock
    assert isinstance(clock, SimulatedClock)
    clock.advance_to(max(clock.now(), START + (number + 0.5) * HOUR))
    rng = np.random.default_rng(number)
    served = [
        Prediction(
            id=f"{number}-{version}-{i}",
            features={"x": 0.0, "city": ("ewr", "jfk")[i % 2]},
            output=round(output, 3),
            served_at=clock.now(),
            version=version,
            role=role,
        )
        for i, output in enumerate(rng.uniform(0.02, 0.98, rows).tolist())
    ]
    log.record(served)
    return served


def tell(log: FeatureLog, served: list[Prediction], *, seed: int = 0, key: str = "first") -> None:
    rng = np.random.default_rng([seed, int(served[0].id.partition("-")[0]), 1])
    values = rng.random(len(served)) < np.array([p.output for p in served], dtype=float)
    log.label(
        [
            Label(prediction_id=p.id, value=bool(value), known_at=log.clock.now(), key=key)
            for p, value in zip(served, values, strict=True)
        ]
    )


def table(log: FeatureLog, pipeline: Pipeline, hours: float) -> Frame:
    """Let it be so many hours after the start, and measure everything."""
    clock = log.clock
    assert isinstance(clock, SimulatedClock)
    clock.advance_to(max(clock.now(), START + hours * HOUR))
    drain(log)
    return performance_of(log, pipeline, clock.now(), last=100)


def of(frame: Frame, number: int, **like: object) -> Frame:
    """Rows of one hour, all predictions in one, measured."""
    criteria = {"estimated": False, "cumulative": False, "metric": "roc_auc"} | like
    rows = frame.filter(pl.col("window_start") == START + number * HOUR, pl.col("slice").is_null())
    return rows.filter(*(pl.col(name) == value for name, value in criteria.items()))


def test_a_window_is_not_judged_before_its_wait_has_passed(log: FeatureLog, pipeline: Pipeline) -> None:
    quick = hour(log, 0)
    tell(log, [p for p in quick if isinstance(p.output, float) and p.output > 0.7])
    (row,) = of(table(log, pipeline, 2.99), 0).to_dicts()
    assert (row["value"], row["mature"], row["predictions"]) == (None, False, 120)
    assert row["labelled"] > 0
    (row,) = of(table(log, pipeline, 3), 0).to_dicts()
    assert row["mature"]
    assert row["value"] is None, "a third of the labels is too few: 38 of 50"


def test_a_window_has_values_and_their_errors(log: FeatureLog, pipeline: Pipeline) -> None:
    served = hour(log, 0)
    tell(log, served)
    (row,) = of(table(log, pipeline, 3), 0).to_dicts()
    frame = log.served(0, log.positions(), ("output",)).drop_nulls("label")
    assert row["value"] == pytest.approx(roc_auc_score(frame["label"], frame["output"]))
    assert row["error"] == score_error("binary", "roc_auc", frame["output"], frame["label"])
    assert (row["version"], row["role"], row["labelled"]) == ("1", "champion", 120)


def test_a_revised_label_corrects_its_window_alone(log: FeatureLog, pipeline: Pipeline) -> None:
    first = hour(log, 0)
    tell(log, first)
    tell(log, hour(log, 1))
    before = table(log, pipeline, 4)
    tell(log, first, seed=9, key="second")
    after = table(log, pipeline, 9)
    assert of(before, 0)["value"][0] != of(after, 0)["value"][0]
    assert_frame_equal(of(before, 1), of(after, 1))


def test_late_labels_change_nothing(log: FeatureLog, pipeline: Pipeline) -> None:
    served = hour(log, 0)
    tell(log, served[:80])
    before = of(table(log, pipeline, 3), 0)
    tell(log, served[80:])
    assert_frame_equal(before, of(table(log, pipeline, 8), 0))


def test_every_version_is_measured_in_every_role_but_history(
    log: FeatureLog, pipeline: Pipeline
) -> None:
    tell(log, hour(log, 0))
    tell(log, hour(log, 0, version="2", role="shadow"))
    hour(log, 0, version="old", role="imported")
    tell(log, hour(log, 1, version="2"))
    found = table(log, pipeline, 4)
    assert of(found, 0).select("version", "role").rows() == [("1", "champion"), ("2", "shadow")]
    assert of(found, 1).select("version", "role").rows() == [("2", "champion")]
    whole = found.filter("cumulative", pl.col("metric") == "roc_auc")
    assert whole.select("version", "role", "labelled").rows() == [
        ("1", "champion", 120),
        ("2", "shadow", 120),
        ("2", "champion", 120),
    ]


def test_cumulative_is_over_the_mature_windows(log: FeatureLog, pipeline: Pipeline) -> None:
    for number in range(3):
        tell(log, hour(log, number))
    found = table(log, pipeline, 4).filter("cumulative", pl.col("metric") == "roc_auc")
    frame = log.served(0, log.positions(), ("output",)).drop_nulls("label").head(240)
    ((value, start, stop),) = found.select("value", "window_start", "window_stop").rows()
    assert value == pytest.approx(roc_auc_score(frame["label"], frame["output"]))
    assert (start, stop) == (START, START + 2 * HOUR)


def test_a_slice_has_rows_for_each_value(log: FeatureLog, pipeline: Pipeline) -> None:
    tell(log, hour(log, 0))
    frame = newest_rows(table(log, pipeline, 3), 1, of_slices=True).filter(metric="roc_auc")
    assert frame.select("slice", "slice_value", "predictions").rows() == [
        ("city", "ewr", 60),
        ("city", "jfk", 60),
    ]
    assert frame["value"].null_count() == 0


def test_an_estimate_stands_beside_and_stays(log: FeatureLog, pipeline: Pipeline) -> None:
    for number in range(6):
        served = hour(log, number, rows=600)
        tell(log, served)
    early = table(log, pipeline, 6)
    (estimate,) = of(early, 5, estimated=True).to_dicts()
    assert of(early, 5)["value"].to_list() == [None]
    assert not estimate["mature"]
    late = table(log, pipeline, 12)
    (later,), (measured,) = of(late, 5, estimated=True).to_dicts(), of(late, 5).to_dicts()
    assert later["value"] == estimate["value"], "it knows only what was mature when its window ended"
    assert later["value"] == pytest.approx(measured["value"], abs=4 * measured["error"])
    assert of(late, 1, estimated=True).is_empty(), "nothing was mature when it ended"
    assert not of(late, 2, estimated=True).is_empty()


def test_a_new_version_is_estimated_by_its_forerunners(log: FeatureLog, pipeline: Pipeline) -> None:
    for number in range(5):
        tell(log, hour(log, number, rows=300, version=str(number)))
    found = of(table(log, pipeline, 5), 4, estimated=True)
    assert found.select("version").rows() == [("4",)]


def test_the_stored_table_replaces_corrected_rows_alone(
    log: FeatureLog, pipeline: Pipeline, settings: Settings
) -> None:
    storage = open_storage(settings)
    assert read_performance(storage, log.identity).is_empty()
    for number in range(4):
        tell(log, hour(log, number, rows=300))
    measured = table(log, pipeline, 6)
    write_performance(storage, log.identity, measured)
    write_performance(storage, log.identity, measured)
    assert_frame_equal(read_performance(storage, log.identity), measured, check_row_order=False)
    late = hour(log, 6, rows=300)
    tell(log, late)
    clock = log.clock
    assert isinstance(clock, SimulatedClock)
    clock.advance_to(START + 9 * HOUR)
    drain(log)
    wait = duration(pipeline.label.wait)
    spans = windows(log, RULE, START, clock.now(), wait, last=6)
    newer = measure_performance(log, pipeline, spans)
    write_performance(storage, log.identity, newer)
    found = read_performance(storage, log.identity)
    assert of(found, 0)["value"].to_list() == of(measured, 0)["value"].to_list()
    assert of(found, 6)["value"].null_count() == 0
    assert found.filter("cumulative", pl.col("slice").is_null(), metric="roc_auc").height == 1
    assert of(found, 6).height == 1
    write_performance(storage, log.identity, newer.clear())
    assert_frame_equal(read_performance(storage, log.identity), found)


def _stream(seed: int, *accuracies: float, rows: int = 10_000) -> tuple[pl.Series, pl.Series]:
    rng = np.random.default_rng(seed)
    outputs, labels = [], []
    for accuracy in accuracies:
        truth = rng.random(rows) < 0.5
        right = rng.random(rows) < accuracy
        labels.append(truth)
        outputs.append(np.where(truth == right, 0.8, 0.2))
    return pl.Series(np.concatenate(outputs)), pl.Series(np.concatenate(labels))


@pytest.mark.parametrize("seed", range(5))
def test_errors_rise_if_accuracy_falls_and_not_if_it_rises(seed: int) -> None:
    assert not errors_rose(*_stream(seed, 0.8, 0.8, 0.8), "binary")
    assert errors_rose(*_stream(seed, 0.8, 0.7), "binary")
    assert not errors_rose(*_stream(seed, 0.7, 0.85), "binary")
    assert not errors_rose(*_stream(seed, 0.8, rows=300), "binary")


def test_errors_rise_in_regressions_and_among_classes() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=20_000)
    spread = np.repeat([1.0, 2.0], 10_000)
    same, worse = pl.Series(truth + rng.normal(size=20_000)), pl.Series(truth + spread * truth[::-1])
    assert not errors_rose(same, pl.Series(truth), "regression")
    assert errors_rose(worse, pl.Series(truth), "regression")
    classes = pl.Series(["a", "b"] * 2_000)
    outputs = pl.Series(
        ['{"a":0.9,"b":0.1}', '{"a":0.1,"b":0.9}'] * 1_000 + ['{"a":0.5,"b":0.5}'] * 2_000
    )
    assert errors_rose(outputs, classes, "multiclass")


def test_the_command_shows_estimates_and_the_last_windows(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimulatedClock(START)
    log = FeatureLog(toy, settings, clock)
    for day in range(4):
        clock.advance_to(START + timedelta(days=day, hours=1))
        outputs = np.random.default_rng(day).uniform(0.02, 0.98, 300).round(3).tolist()
        served = [
            Prediction(
                id=f"{day}-{i}",
                features={"x": 0.0, "y": 0.0},
                output=p,
                served_at=clock.now(),
                version="7",
            )
            for i, p in enumerate(outputs)
        ]
        log.record(served)
        tell(log, served)
    drain(log)
    log.close()
    log.database.close()
    monkeypatch.setenv("HEADWATER_HOME", str(settings.root))
    monkeypatch.setenv("HEADWATER_NOW", (START + timedelta(days=4)).isoformat())
    printed = []
    for options in ([], ["--json"]):
        read_settings.cache_clear()
        monkeypatch.setattr("sys.argv", ["headwater", "performance", TOY, "--last", "2", *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        printed.append(capsys.readouterr().out)
    read_settings.cache_clear()
    assert "(estimate)" in printed[0]
    assert "all, 2024-01-01" in printed[0]
    rows = json.loads(printed[1])
    assert {row["window_start"] for row in rows if not row["cumulative"]} == {
        "2024-01-03T00:00:00Z",
        "2024-01-04T00:00:00Z",
    }
    assert {row["version"] for row in rows} == {"7"}


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "accuracy"])
def test_errors_are_those_of_the_bootstrap(metric: Metric) -> None:
    rng = np.random.default_rng(3)
    outputs = rng.uniform(0.05, 0.95, 800)
    truth = rng.random(800) < outputs
    values = []
    for _ in range(300):
        rows = rng.integers(0, 800, 800)
        values.append(
            score("binary", (metric,), pl.Series(outputs[rows]), pl.Series(truth[rows]))[metric]
        )  # type: ignore[arg-type, index] # a name
    error = score_error("binary", metric, pl.Series(outputs), pl.Series(truth))  # type: ignore[arg-type] # a name
    assert error == pytest.approx(np.std(values), rel=0.15)


def test_an_error_that_cannot_be_computed_is_none() -> None:
    outputs, labels = pl.Series([0.2, 0.7, 0.4]), pl.Series([True, True, True])
    assert score_error("binary", "roc_auc", outputs, labels) is None
    assert score_error("binary", "f1", outputs, labels) is None
    assert score_error("regression", "rmse", outputs, labels.cast(pl.Float64)) is None
    assert score_error("regression", "mae", outputs[:1], labels[:1].cast(pl.Float64)) is None
    shares = pl.Series(['{"a":0.9,"b":0.1}', "{}"])
    assert score_error("multiclass", "accuracy", shares, pl.Series(["a", "b"])) == pytest.approx(0.5)
    assert score_error("multiclass", "f1", shares, pl.Series(["a", "b"])) is None
    assert set(METRICS) == {"binary", "multiclass", "regression", "ranking"}


Opener = Callable[..., FeatureLog]


def test_starved_windows_have_no_value(open_log: Opener, pipeline: Pipeline) -> None:
    log = open_log()
    hour(log, 0)
    (row,) = of(table(log, pipeline, 5), 0).to_dicts()
    assert (row["value"], row["labelled"], row["mature"]) == (None, 0, True)
