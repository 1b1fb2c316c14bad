import numpy as np
import pytest

from headwater.monitoring.attention.concept_drift import concept_changed

_Window = tuple[np.ndarray, np.ndarray]


def window(seed: int, rows: int, *, tilt: float = 0.0) -> _Window:
    """Labels that follow outputs, not quite as these say; tilted, more rows have high outputs."""
    rng = np.random.default_rng(seed)
    outputs = rng.beta(2 + tilt, 5, rows)
    return outputs, (rng.random(rows) < outputs**1.2).astype(np.float64)


def flipped(its: _Window, share: float) -> _Window:
    outputs, labels = its
    flip = np.random.default_rng(9).random(len(labels)) < share
    return outputs, np.where(flip, 1 - labels, labels)


def test_luck_seldom_looks_like_a_change() -> None:
    before = window(0, 30_000)
    alarms = [concept_changed(*before, *window(seed, 4_000)) for seed in range(1, 301)]
    assert 3 <= sum(alarms) <= 30, "one in twenty"


def test_other_rows_are_no_change() -> None:
    assert not concept_changed(*window(0, 30_000), *window(1, 6_000, tilt=2.0))


@pytest.mark.parametrize("share", [0.08, 0.3, 1.0])
def test_flipped_labels_are_a_change(share: float) -> None:
    assert concept_changed(*window(0, 30_000), *flipped(window(1, 6_000), share))


def test_labels_that_follow_less_steeply_at_the_same_rate_are_a_change() -> None:
    outputs, labels = window(1, 6_000)
    assert concept_changed(*window(0, 30_000), outputs, np.random.default_rng(2).permutation(labels))


@pytest.mark.parametrize("labels", [np.zeros(500), np.ones(500)])
def test_labels_of_one_kind_are_judged(labels: np.ndarray) -> None:
    outputs = np.linspace(0, 1, 500)
    assert not concept_changed(outputs, labels, outputs, labels)
    assert concept_changed(outputs, labels, outputs, 1 - labels)


def test_outputs_of_one_height_cannot_tell() -> None:
    before = np.full(500, 0.3), np.zeros(500)
    assert not concept_changed(*before, np.full(400, 0.3), np.ones(400))
