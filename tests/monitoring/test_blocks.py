import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.monitoring.measure.block_errors import mean_errors, move_errors, parts


@given(st.integers(0, 500), st.integers(1, 40))
def test_parts_are_runs_of_about_the_same_length(rows: int, count: int) -> None:
    part = parts(rows, count)
    assert (np.diff(part) >= 0).all()
    lengths = np.bincount(part, minlength=count)
    assert len(lengths) == count
    assert lengths.max() - lengths.min() <= 1


@pytest.mark.parametrize("rows", [300, 4_000])
def test_the_error_of_single_rows_is_about_that_of_a_mean(rows: int) -> None:
    values = np.random.default_rng(0).normal(size=(rows, 400))
    ratio = mean_errors(values).mean() * np.sqrt(rows)
    assert 1.0 <= ratio < 1.35, "the greatest of several is a little more"


def test_the_error_of_rows_alike_within_days_is_that_of_so_many_days() -> None:
    rng = np.random.default_rng(0)
    days = np.repeat(rng.normal(size=(10, 400)), 200, axis=0) + 0.1 * rng.normal(size=(2_000, 400))
    assert mean_errors(days).mean() * np.sqrt(10) > 0.9


def test_a_few_rows_have_an_error_too() -> None:
    assert mean_errors(np.arange(12.0).reshape(4, 3)) == pytest.approx([1.6771] * 3, rel=1e-3)


def test_an_hour_knows_nothing_of_other_hours_and_the_reference_does() -> None:
    rng = np.random.default_rng(0)
    hours = np.sin(np.arange(240) * np.pi / 12)
    before = np.repeat(hours, 100)[:, None] + rng.normal(size=(24_000, 1))
    now = hours[6] + rng.normal(size=(100, 1))
    error = abs(float(now.mean() - before.mean()))
    assert error > 5 * move_errors(before, now, windows=1)[0]
    assert error < 2 * move_errors(before, now, windows=240)[0]


@pytest.mark.parametrize(("rows", "windows"), [(4_000, 3), (333, 12), (500, 1)])
def test_other_windows_add_little_if_rows_are_single(rows: int, windows: int) -> None:
    rng = np.random.default_rng(0)
    before, now = rng.normal(size=(4_000, 400)), rng.normal(size=(rows, 400))
    alone = np.hypot(mean_errors(before), mean_errors(now)).mean()
    assert 1.0 <= move_errors(before, now, windows).mean() / alone < 1.35
