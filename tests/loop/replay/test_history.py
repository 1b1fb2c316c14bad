"""Import: what the table says is what the example has, or a refusal with the row that keeps nothing."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from msgspec.structs import replace
from tests.conftest import START

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.replay.history import Columns
from headwater.loop.replay.import_history import import_history
from headwater.spec.data.feature import Feature
from headwater.spec.errors import ConflictError, NonFiniteError, SchemaError
from headwater.spec.pipeline import Pipeline

KNOWN = START + timedelta(hours=1)
FRAME = pl.DataFrame(
    {
        "id": ["007", "7", "x"],
        "served_at": [START] * 3,
        "known_at": [KNOWN, KNOWN, None],
        "label": [True, False, None],
        "x": [1.5, 0.1, None],
        "n": [1, 2**60, None],
        "b": [True, False, None],
        "c": ["02139", "", None],
    }
)

Doors = dict[str, Callable[[pl.DataFrame, Path], Any]]


def as_csv(frame: pl.DataFrame, folder: Path) -> Path:
    frame.write_csv(folder / "h.csv")
    return folder / "h.csv"


def as_parquet(frame: pl.DataFrame, folder: Path) -> Path:
    frame.write_parquet(folder / "h.parquet")
    return folder / "h.parquet"


DOORS: Doors = {
    "csv": as_csv,
    "parquet": as_parquet,
    "polars": lambda frame, _: frame,
    "pandas": lambda frame, _: frame.to_pandas(use_pyarrow_extension_array=True),
}


@pytest.fixture
def wide(pipeline: Pipeline) -> Pipeline:
    kinds = (("x", float), ("n", int), ("b", bool), ("c", str))
    return replace(pipeline, features=tuple(Feature(name, kind, nullable=True) for name, kind in kinds))


@pytest.fixture
def opened(settings: Settings, clock: SimulatedClock) -> Any:
    logs: list[FeatureLog] = []
    clock.advance_to(KNOWN)

    def opener(pipeline: Pipeline) -> FeatureLog:
        logs.append(FeatureLog(pipeline, settings, clock))
        return logs[-1]

    yield opener
    for log in logs:
        log.close()
        log.database.close()


def examples(log: FeatureLog) -> pl.DataFrame:
    with log.sequencer() as sequencer:
        sequencer.drain()
    return log.examples(0, None, ("prediction_id", "label", "features", "known_at"))


@pytest.mark.parametrize("door", DOORS)
def test_an_example_has_the_values_of_the_table(
    wide: Pipeline, opened: Any, tmp_path: Path, door: str
) -> None:
    log = opened(wide)
    assert import_history(log, DOORS[door](FRAME, tmp_path)) == 5
    found = examples(log).unnest("features")
    wanted = FRAME.head(2).select(prediction_id="id", label="label", x="x", n="n", b="b", c="c")
    assert found.select(wanted.columns).equals(wanted)
    assert log.inbox.count_after(0) == 5
    assert import_history(log, DOORS[door](FRAME, tmp_path)) == 0


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"n": pl.Series([1.0, 3.7, None])}, "'n'.* holds .*(3.7|1.0).*no int"),
        ({"b": pl.Series([1, 2, None])}, "'b'.* holds .*2.*no bool"),
        ({"label": pl.Series([1, -1, None])}, "'label'.* holds .*-1.*no bool"),
        ({"label": pl.Series([0.0, 0.3, None])}, "'label'.* holds"),
        ({"x": pl.Series(["1", "many", None])}, "'x'.* holds .*(many|1).*no float"),
        ({"x": pl.Series([START, START, None])}, "'x'.* holds .*no float"),
        (
            {"served_at": pl.col("served_at").dt.replace_time_zone(None)},
            "'served_at'.* no time with a zone",
        ),
        ({"id": pl.Series(["a", None, "c"])}, "'id' is null"),
        ({"id": pl.Series(["a", "b" * 201, "c"])}, "has 201 characters"),
        ({"served_at": pl.Series([START, None, START])}, "'served_at' is null"),
        ({"known_at": pl.Series([KNOWN, None, None])}, "label False has no 'known_at'"),
        ({"n": pl.Series([1, 2**63, None], dtype=pl.UInt64)}, "'n'.* holds .*no int"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, dict) else "",
)
def test_a_misfit_is_refused_with_its_row(
    wide: Pipeline, opened: Any, tmp_path: Path, door: str, changed: dict[str, Any], said: str
) -> None:
    log = opened(wide)
    frame = FRAME.with_columns(**changed)
    place = r"line [23]" if door == "csv" else r"row [01] \(from 0\)"
    with pytest.raises(SchemaError, match=f"^{place}: .*{said}") as refused:
        import_history(log, DOORS[door](frame, tmp_path))
    assert refused.value.hint
    assert len(str(refused.value)) < 500
    assert log.inbox.count_after(0) == 0


@pytest.mark.parametrize(("column", "said"), [("served_at", "was served"), ("known_at", "became known")])
def test_a_time_of_the_future_is_refused_with_its_row(
    wide: Pipeline, opened: Any, column: str, said: str
) -> None:
    log, late = opened(wide), [START, KNOWN + timedelta(microseconds=1), KNOWN]
    words = rf"^row 1 \(from 0\): .*'7' {said} at 2024-01-01 01:00:00.* after the present"
    with pytest.raises(SchemaError, match=words) as refused:
        import_history(log, FRAME.with_columns(pl.Series(column, late)))
    assert "zone" in (refused.value.hint or "")
    assert log.inbox.count_after(0) == 0


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("task", "column"), [("binary", "x"), ("regression", "label")])
def test_nan_and_infinity_are_refused(
    pipeline: Pipeline, opened: Any, number: float, task: Any, column: str
) -> None:
    log = opened(replace(pipeline, task=task, features=(Feature("x", float),)))
    label = [1.0, 0.0] if task == "regression" else [True, False]
    frame = FRAME.head(2).with_columns(label=pl.Series(label))
    for rows, place in (([1.0, number], 1), ([number, number], 0)):
        with pytest.raises(NonFiniteError, match=rf"^row {place} \(from 0\): column '{column}' holds"):
            import_history(log, frame.with_columns(pl.Series(column, rows)))
    assert log.inbox.count_after(0) == 0


def test_null_is_refused_unless_the_feature_is_nullable(wide: Pipeline, opened: Any) -> None:
    log = opened(replace(wide, features=(Feature("c", str),)))
    with pytest.raises(SchemaError, match=r"^row 2 \(from 0\): column 'c' is null; 1 rows are"):
        import_history(log, FRAME)


def test_a_class_may_be_called_na_unless_it_stands_for_null(
    wide: Pipeline, opened: Any, tmp_path: Path
) -> None:
    path = tmp_path / "h.csv"
    path.write_text(
        f"id,served_at,known_at,label,c\na,{START},{KNOWN},NA,NA\nb,{START},{KNOWN},EU,null\n"
    )
    kind = replace(wide, task="multiclass", features=(Feature("c", str, nullable=True),))
    log = opened(kind)
    assert import_history(log, path) == 4
    assert examples(log)["label"].to_list() == ["NA", "EU"]
    log = opened(replace(kind, name="other"))
    assert import_history(log, path, Columns(null=("NA", "null"))) == 3  # no truth, no label
    assert examples(log)["features"].to_list() == [{"c": None}]


def test_a_label_that_never_came_may_have_a_time(wide: Pipeline, opened: Any) -> None:
    frame = FRAME.with_columns(label=pl.lit(None), known_at=pl.lit(KNOWN))
    assert import_history(opened(wide), frame) == 3


def test_outputs_come_from_their_column(pipeline: Pipeline, opened: Any) -> None:
    log = opened(replace(pipeline, features=(Feature("x", float, nullable=True),)))
    with pytest.raises(SchemaError, match=r"'said'.* holds 'x', which is no float"):
        import_history(log, FRAME.with_columns(said=pl.lit("x")), Columns(output="said"))
    with pytest.raises(SchemaError, match=r"^row 1 .*'said' is null"):
        import_history(log, FRAME.with_columns(said=pl.Series([0.1, None, 0.3])), Columns(output="said"))
    with pytest.raises(SchemaError, match="no column said"):
        import_history(log, FRAME, Columns(output="said"))
    with pytest.raises(SchemaError, match="column 'x' would be both bool and float"):
        import_history(log, FRAME, Columns(label="x"))
    assert (
        import_history(log, FRAME.with_columns(said=pl.Series([1, 0, 1])), Columns(output="said")) == 5
    )


def test_an_id_that_comes_twice_with_another_payload_is_a_conflict(wide: Pipeline, opened: Any) -> None:
    log = opened(wide)
    with pytest.raises(ConflictError):
        import_history(log, FRAME.with_columns(id=pl.lit("a")))
    assert log.inbox.count_after(0) == 0
    same = pl.concat([FRAME, FRAME]).with_columns(pl.col("served_at").dt.convert_time_zone("Asia/Tokyo"))
    assert import_history(log, same) == 5
