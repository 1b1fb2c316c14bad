"""Batch prediction: declarations that are accepted or refused, due runs, ids."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.loop.conftest import PIPELINE

from headwater.spec.data.source import DeltaSource, ParquetSource, QuerySource
from headwater.spec.errors import DeclarationError
from headwater.spec.serving.batch import BatchPrediction, is_due, prediction_id
from headwater.spec.updating.triggers.schedule import Cron

TABLE = ParquetSource("people.parquet")
BATCH = BatchPrediction(source=TABLE, key="person")
NOW = datetime(2024, 1, 1, tzinfo=UTC)


def people(limit: int) -> object:
    return limit


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"source": "people.parquet"}, "is no table"),
        ({"key": ""}, "names no column"),
        ({"every": "daily"}, "every='daily' is not a duration"),
        ({"max_age": "1"}, "max_age='1' is not a duration"),
        ({"every": "1d", "max_age": "23h"}, "is shorter than every"),
        ({"fall_through": "yes"}, "fall_through='yes'"),
        ({"rows": 0}, "rows=0 is not a number from 1 on"),
        ({"keep": True}, "keep=True is not a number from 1 on"),
    ],
)
def test_a_wrong_batch_prediction_is_refused_with_a_hint(changes: dict[str, object], says: str) -> None:
    with pytest.raises(DeclarationError, match=says) as refused:
        replace(BATCH, **changes)
    assert "write" in refused.value.hint


@pytest.mark.parametrize("query", [lambda: 1, people, "people", int])
def test_a_query_is_a_named_function_of_no_arguments(query: object) -> None:
    with pytest.raises(DeclarationError, match="query="):
        QuerySource(query)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [DeltaSource, ParquetSource])
@pytest.mark.parametrize("address", ["", " ", None])
def test_an_empty_address_is_refused(source: type, address: object) -> None:
    with pytest.raises(DeclarationError, match="names no table"):
        source(address)


def test_a_pipeline_refuses_a_batch_of_another_type() -> None:
    assert replace(PIPELINE, batch=BATCH).batch == BATCH
    with pytest.raises(DeclarationError, match="is not a BatchPrediction"):
        replace(PIPELINE, batch=TABLE)


@pytest.mark.parametrize(
    ("every", "hours", "due"),
    [
        ("1d", 23, False),
        ("1d", 24, True),
        (Cron("0 6 * * *", "Europe/Berlin"), 4, False),
        (Cron("0 6 * * *", "Europe/Berlin"), 5, True),
        (None, 9_999, False),
    ],
)
def test_another_run_is_due_after_the_interval_or_the_cron_time(
    every: object, hours: int, due: object
) -> None:
    assert is_due(replace(BATCH, every=every), NOW, NOW + timedelta(hours=hours)) is due


runs = st.from_regex(r"[1-9][0-9]{0,8}-[0-9a-f]{8}", fullmatch=True)


@given(runs, st.text(min_size=1, max_size=150), runs, st.text(min_size=1, max_size=150))
def test_prediction_ids_differ_by_run_and_key_and_fit_their_limit(
    run: str, key: str, other: str, another: str
) -> None:
    same = (run, key) == (other, another)
    assert (prediction_id(run, key) == prediction_id(other, another)) is same
    assert len(prediction_id(run, key)) <= 200
