import math
import time
from datetime import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.monitoring.measure.drift import ColumnDrift, column_drift, drift
from headwater.monitoring.report import report_html
from headwater.spec.data.feature import Feature, RequestFeature

_FEATURES = (
    Feature("number", float, nullable=True),
    Feature("other", float),
    Feature("two", float),
    Feature("four", float),
    Feature("count", int),
    Feature("level", int),
    Feature("rare", int, nullable=True),
    Feature("word", str, nullable=True),
    Feature("side", str),
    Feature("flag", bool),
    Feature("constant", float),
)


def _frame(rows: int, seed: int, moved: float) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    number = rng.normal(moved, 1 + moved, rows)
    number[rng.random(rows) < 0.05] = math.nan
    number[rng.random(rows) < 0.02] = math.inf
    word = rng.choice(["a", "b", "c", "d"], rows, p=[0.4 - moved / 4, 0.3, 0.2, 0.1 + moved / 4])
    return pl.DataFrame(
        {
            "number": number,
            "other": rng.exponential(1 + moved / 2, rows),
            "two": (rng.random(rows) < 0.3 + moved / 4).astype(float),
            "four": rng.binomial(3, 0.5 + moved / 5, rows).astype(float),
            "count": rng.poisson(20 + 2 * moved, rows),
            "level": rng.binomial(7, 0.4 + moved / 6, rows),
            "rare": pl.Series(rng.binomial(8, 0.4 + moved / 6, rows).tolist()).scatter(0, None),
            "word": pl.Series(word.tolist()).scatter(1, None),
            "side": rng.choice(["left", "right"], rows, p=[0.5 - moved / 5, 0.5 + moved / 5]),
            "flag": rng.random(rows) < 0.6 + moved / 5,
            "constant": np.ones(rows),
        }
    )


def _evidently(reference: pl.DataFrame, current: pl.DataFrame) -> dict[str, tuple[float, bool]]:
    """Ask Evidently itself, with nothing said about the columns but what it can take."""
    from evidently import Report  # noqa: PLC0415 - seconds to import
    from evidently.presets import DataDriftPreset  # noqa: PLC0415

    texts = pl.col("flag").cast(pl.String)
    first, second = (frame.with_columns(texts).to_pandas() for frame in (reference, current))
    found = Report([DataDriftPreset()], include_tests=True).run(second, first).dict()
    scores = {
        m["config"]["column"]: float(m["value"]) for m in found["metrics"] if "column" in m["config"]
    }
    failed = {
        t["metric_config"]["params"]["column"]: t["status"].value == "FAIL"
        for t in found["tests"]
        if "column" in t["metric_config"]["params"]
    }
    return {name: (score, failed[name]) for name, score in scores.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("rows", "others", "moved"), [(1_000, 600, 0.15), (1_500, 900, 0.15)])
def test_verdicts_and_distances_are_evidentlys(rows: int, others: int, moved: float) -> None:
    reference, current = _frame(rows, 1, 0.0), _frame(others, 2, moved)
    judged, notes = drift(reference, current, _FEATURES)
    theirs = _evidently(reference, current)
    assert notes == []
    assert {c.name: c.drifted for c in judged} == {name: failed for name, (_, failed) in theirs.items()}
    assert {c.name: c.distance for c in judged} == pytest.approx(
        {name: score for name, (score, _) in theirs.items()}, rel=1e-6, abs=1e-9
    )


_BAD: list[tuple[RequestFeature, pl.Series, str]] = [
    (Feature("x", float), pl.Series("x", [], pl.Float64), "no value"),
    (Feature("x", float), pl.Series("x", [None] * 300, pl.Float64), "no value"),
    (Feature("x", float), pl.Series("x", [None] * 300), "no value"),
    (Feature("x", float), pl.Series("x", [math.nan] * 300), "no value"),
    (Feature("x", float), pl.Series("x", [math.inf, -math.inf] * 150), "no value"),
    (Feature("x", float), pl.Series("x", ["1.5"] * 300), "text instead of numbers"),
    (Feature("x", float), pl.Series("x", [datetime(2024, 1, 1)] * 300), "timestamps"),  # noqa: DTZ001
    (Feature("x", float), pl.Series("x", [[1.0]] * 300), "values of type"),
    (Feature("x", str), pl.Series("x", [1.0] * 300), "numbers instead of text"),
    (Feature("x", str), pl.Series("x", [f"id-{i}" for i in range(300)]), "unique"),
]


@pytest.mark.parametrize(("kind", "bad", "reason"), _BAD)
def test_a_column_that_cannot_be_judged_is_a_note_and_never_no_drift(
    kind: RequestFeature, bad: pl.Series, reason: str
) -> None:
    good = pl.Series("x", ["a", "b"] * 150) if kind.dtype == "str" else pl.Series("x", [0.0, 1.0] * 150)
    judged, notes = drift(good.to_frame(), bad.to_frame(), [kind])
    assert judged == []
    assert len(notes) == 1
    assert reason in notes[0]
    assert notes[0].startswith("x: not judged")


def test_a_column_that_a_window_lacks_is_a_note() -> None:
    judged, notes = drift(pl.DataFrame({"x": [1.0]}), pl.DataFrame({"y": [1.0]}), [Feature("x", float)])
    assert (judged, notes) == ([], ["x: not judged, the current window lacks it"])


def test_a_constant_that_stays_is_judged_not_drifted_and_one_that_moves_is_drifted() -> None:
    one, two, kind = pl.Series([1.0] * 400), pl.Series([2.0] * 400), Feature("x", float)
    stays, moves = column_drift(one, one, kind), column_drift(one, two, kind)
    assert isinstance(stays, ColumnDrift)
    assert isinstance(moves, ColumnDrift)
    assert (stays.drifted, moves.drifted) == (False, True)


_values = st.one_of(
    st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32), st.just(0.0), st.just(1.0)
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_values, max_size=40), st.lists(_values, max_size=40))
def test_any_numbers_are_judged_or_noted(first: list[float | None], second: list[float | None]) -> None:
    found = column_drift(
        pl.Series(first, dtype=pl.Float64), pl.Series(second, dtype=pl.Float64), Feature("x", float)
    )
    usable = [any(v is not None and math.isfinite(v) for v in values) for values in (first, second)]
    assert isinstance(found, ColumnDrift) == all(usable)
    assert isinstance(found, str) or math.isfinite(found.distance)


def test_ten_thousand_rows_by_twenty_columns_take_no_tenth_of_a_second_each() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({f"x{i}": rng.normal(size=10_000) for i in range(20)})
    kinds = [Feature(name, float) for name in frame.columns]
    drift(frame, frame, kinds)
    started_s = time.process_time()
    judged, _ = drift(frame, frame.reverse(), kinds)
    assert len(judged) == 20
    assert time.process_time() - started_s < 1.0


@pytest.mark.filterwarnings("ignore")
def test_a_report_is_one_page_that_names_its_columns_and_leaves_out_what_breaks() -> None:
    frame = _frame(300, 0, 0.0).with_columns(
        nothing=pl.lit(None, pl.Float64),
        unbounded_q=pl.lit(math.inf),
        when=pl.lit(datetime(2024, 1, 1)),  # noqa: DTZ001
    )
    kinds = (
        *_FEATURES,
        Feature("nothing", float),
        Feature("unbounded_q", float),
        Feature("when", float),
    )
    page = report_html(frame, frame, kinds)
    assert page is not None
    assert b"<html" in page[:2_000].lower()
    assert b"constant" in page
    assert b"unbounded_q" not in page


def test_a_window_without_columns_makes_no_report() -> None:
    empty = pl.DataFrame({"x": pl.Series([], dtype=pl.Float64)})
    assert report_html(empty, empty, [Feature("x", float)]) is None
