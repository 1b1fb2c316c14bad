"""Estimates without labels, against what they promise: expectations over drawn labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

from headwater.monitoring.measure.estimate import Compared, Estimator, expected_auc, shrunk
from headwater.spec.pipeline import Metric

SCORES = st.lists(st.sampled_from([0.05, 0.2, 0.2, 0.4, 0.6, 0.75, 0.9, 0.95]), min_size=2, max_size=12)


@given(scores=SCORES, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_fast_form_counts_the_pairs(scores: list[float], seed: int) -> None:
    outputs = np.array(scores)
    chances = np.random.default_rng(seed).uniform(0.1, 0.9, len(outputs))
    right = pairs = 0.0
    for i in range(len(outputs)):
        for j in range(len(outputs)):
            if i != j:
                weight = chances[i] * (1 - chances[j])
                pairs += weight
                right += weight * ((outputs[i] > outputs[j]) + 0.5 * (outputs[i] == outputs[j]))
    assert expected_auc(chances, outputs) == pytest.approx(right / pairs, abs=1e-9)


@given(st.lists(st.booleans(), min_size=2, max_size=30), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_certain_labels_give_the_measured_value(labels: list[bool], seed: int) -> None:
    outputs = np.random.default_rng(seed).integers(0, 6, len(labels)) / 5
    found = expected_auc(np.array(labels, dtype=float), outputs)
    if len(set(labels)) < 2:
        assert found is None
    else:
        assert found == pytest.approx(roc_auc_score(labels, outputs), abs=1e-9)


def test_all_metrics_are_the_mean_over_drawn_labels() -> None:
    rng = np.random.default_rng(0)
    chances = np.round(rng.beta(1, 2, 2_000), 2)
    many = np.round(rng.beta(1, 2, 60_000), 2)
    estimator = Estimator().fit(many, (rng.random(len(many)) < many).astype(float))
    sure = np.clip(chances, 1e-15, 1 - 1e-15)
    worlds = [rng.random(len(chances)) < chances for _ in range(60)]
    measured: dict[Metric, list[float]] = {
        "roc_auc": [roc_auc_score(world, chances) for world in worlds],
        "log_loss": [log_loss(world, sure) for world in worlds],
        "accuracy": [accuracy_score(world, chances >= 0.5) for world in worlds],
        "f1": [f1_score(world, chances >= 0.5) for world in worlds],
    }
    for metric, values in measured.items():
        assert estimator.estimate(metric, chances) == pytest.approx(np.mean(values), abs=0.01)


@pytest.mark.parametrize("labels", [950, 20_000])
def test_calibration_mends_scores_that_are_too_sure(labels: int) -> None:
    rng = np.random.default_rng(1)
    chances = rng.beta(2, 2, labels)
    sure = chances**3 / (chances**3 + (1 - chances) ** 3)
    truth = rng.random(labels) < chances
    new = rng.beta(2, 2, 20_000)
    scores = new**3 / (new**3 + (1 - new) ** 3)
    found = Estimator().fit(sure, truth.astype(float)).estimate("roc_auc", scores)
    assert found == pytest.approx(roc_auc_score(rng.random(len(new)) < new, scores), abs=0.05)


def test_an_estimate_follows_a_shift_of_the_scores() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.beta(1, 1, 20_000), rng.beta(6, 6, 20_000)
    estimator = Estimator().fit(before, (rng.random(20_000) < before).astype(float))
    measured = roc_auc_score(rng.random(20_000) < after, after)
    assert estimator.estimate("roc_auc", after) == pytest.approx(measured, abs=0.02)


def test_a_metric_that_cannot_be_estimated_is_none() -> None:
    scores = np.linspace(0.01, 0.99, 400)
    assert Estimator().estimate("roc_auc", scores) is None
    assert Estimator().fit(scores, np.ones(400)).estimate("roc_auc", scores) is None
    fitted = Estimator().fit(scores, (np.arange(400) % 2).astype(float))
    assert fitted.estimate("mae", scores) is None
    assert fitted.estimate("roc_auc", scores[:0]) is None


def test_an_estimate_that_held_is_believed() -> None:
    values = [0.7, 0.8, 0.75, 0.85, 0.65, 0.8]
    assert shrunk(0.9, [Compared(v, v) for v in values]) == pytest.approx(0.9, abs=1e-9)
    assert shrunk(0.9, []) == 0.9
    assert shrunk(0.9, [Compared(None, 0.7)]) == pytest.approx(0.9)


def test_an_estimate_that_went_the_wrong_way_is_not_believed() -> None:
    wrong = [Compared(1.5 - v, v) for v in (0.6, 0.9, 0.6, 0.9, 0.6, 0.9, 0.6, 0.9) * 3]
    assert shrunk(0.9, wrong) < 0.75
