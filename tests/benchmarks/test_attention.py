"""What the claim about attention counts with: its AUC, its intervals, and how a shift is drawn."""

import numpy as np
import pytest
from benchmarks.monitoring.attention import Tally
from benchmarks.monitoring.shifts import FIGURE, TUNING, auc, is_harmful
from sklearn.metrics import roc_auc_score


@pytest.mark.parametrize("weighted", [False, True])
def test_area_under_the_curve_is_scikit_learns(weighted: bool) -> None:
    drawn = np.random.default_rng(0)
    outputs = drawn.integers(0, 20, 500) / 20
    labels = drawn.random(500) < outputs
    weights = drawn.random(500) if weighted else None
    assert auc(labels, outputs, weights) == pytest.approx(
        roc_auc_score(labels, outputs, sample_weight=weights)
    )


def test_lower_ends_are_wilsons() -> None:
    numbers = Tally(hits=45, false=5, missed=0, quiet=10).numbers()
    assert numbers["precision"] == 0.9
    assert numbers["precision_lower"] == pytest.approx(0.7864, abs=1e-4)
    assert numbers["recall_lower"] == pytest.approx(0.9213, abs=1e-4)


@pytest.mark.parametrize(
    ("harm", "error", "expected"),
    [(0.02, 0.005, True), (0.02, 0.02, None), (0.005, 0.001, None), (0.005, 0.004, False)],
)
def test_the_band_between_is_left_out(harm: float, error: float, expected: bool | None) -> None:
    assert is_harmful(harm, error) is expected


def test_no_family_of_the_figure_was_tuned_on_but_the_empty_one() -> None:
    assert set(FIGURE) & set(TUNING) == {"nothing"}
