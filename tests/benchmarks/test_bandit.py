"""The trials of the bandit claim use the policies that serve, and tests that keep what they promise."""

import numpy as np
import pytest
from benchmarks.routing.trials import (
    AlwaysValid,
    Bandit,
    Fixed,
    Method,
    OBrienFleming,
    Trial,
    obrien_fleming,
    per_version,
    play,
    thompson_shares,
    ucb_shares,
)

from headwater.spec.serving.bandit import Arm, kl_ucb, thompson

TRIALS = 400


def some_arms() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 10 ** rng.integers(0, 6, size=(60, 4)))
    return labels, rng.binomial(labels, rng.uniform(0, 0.3, size=(60, 4)))


def test_arrays_agree_with_the_policies() -> None:
    labels, gained = some_arms()
    its, ucbs = thompson_shares(labels, gained), ucb_shares(labels, gained)
    for i in range(len(labels)):
        arms = [
            Arm(labels=int(n), gained_ppm=int(k) * 1_000_000)
            for n, k in zip(labels[i], gained[i], strict=True)
        ]
        assert its[i] == pytest.approx(thompson(arms), abs=1e-9)
        assert ucbs[i] == pytest.approx(kl_ucb(arms), abs=1e-9)


def test_sample_size_and_boundary_are_those_of_the_tables() -> None:
    assert per_version(0.05, 0.0525, 0.05, 0.8) == 122_124
    # Jennison and Turnbull, "Group sequential methods", 2000, table 2.3
    found = [obrien_fleming(0.05, looks) for looks in (1, 2, 5, 10)]
    assert found == pytest.approx([1.960, 1.977, 2.040, 2.087], abs=0.001)


def methods() -> list[Method]:
    return [
        Fixed(0.1),
        OBrienFleming(TRIALS, 0.1, challengers=1, looks=5, total=40_000),
        AlwaysValid(TRIALS, 0.1, challengers=1, effect=0.02),
    ]


@pytest.mark.parametrize("delay", [0, 4_000])
@pytest.mark.parametrize("which", range(3), ids=["fixed", "obrien_fleming", "always_valid"])
def test_tests_seldom_find_what_is_not_there(which: int, delay: int) -> None:
    trial = Trial((0.1, 0.1), 40_000, 1_000, delay)
    played = play(trial, methods()[which], TRIALS, np.random.default_rng(1))
    assert (played.chosen == 1).mean() < 0.05 + 3.5 * (0.05 * 0.95 / TRIALS) ** 0.5


@pytest.mark.parametrize("policy", ["thompson", "ucb"])
@pytest.mark.parametrize("delay", [0, 4_000])
def test_bandit_finds_what_is_much_better(policy: str, delay: int) -> None:
    trial = Trial((0.1, 0.1, 0.15), 30_000, 1_000, delay)
    played = play(trial, Bandit(policy, 0.05), 50, np.random.default_rng(1))
    assert (played.chosen == 2).all()
    assert played.labels.sum(axis=1) == pytest.approx(30_000)
    assert played.regret.mean() < 0.5 * (2 / 3 * 30_000 * 0.05)
