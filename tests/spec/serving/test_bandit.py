"""A bandit's counts add up in any order, and its policies are those of the papers and of River."""

from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import bandit as river_bandit
from river import proba
from scipy.integrate import quad
from scipy.stats import beta

from headwater.spec.data.records import LabelValue, Output
from headwater.spec.errors import SchemaError
from headwater.spec.serving.bandit import (
    Arm,
    BanditState,
    kl_ucb,
    merge,
    observe,
    pulled,
    revise,
    reward_of,
    thompson,
    unrewarded,
)

REWARDS = st.lists(st.tuples(st.sampled_from("345"), st.floats(0, 1)), max_size=30)
ARMS = st.lists(
    st.integers(0, 10**6).flatmap(
        lambda n: st.builds(Arm, labels=st.just(n), gained_ppm=st.integers(0, n * 10**6))
    ),
    min_size=1,
    max_size=6,
)


def arm(gained: int, labels: int) -> Arm:
    return Arm(labels=labels, gained_ppm=gained * 1_000_000)


NOTHING = BanditState()


def after(rewards: list[tuple[str, float]], state: BanditState = NOTHING) -> BanditState:
    for version, reward in rewards:
        state = observe(state, version, reward)
    return state


@given(REWARDS, st.randoms())
def test_counts_do_not_depend_on_the_order_of_rewards(
    rewards: list[tuple[str, float]], random: Any
) -> None:
    mixed = random.sample(rewards, len(rewards))
    assert after(mixed) == after(rewards)


@given(REWARDS, REWARDS, REWARDS)
def test_counts_of_processes_merge_to_those_of_one(
    one: list[tuple[str, float]], two: list[tuple[str, float]], three: list[tuple[str, float]]
) -> None:
    alone = after(one + two + three)
    parts = [after(one), after(two), after(three)]
    assert merge(*parts) == merge(*reversed(parts)) == merge(merge(*parts[:2]), parts[2]) == alone


@given(REWARDS, st.floats(0, 1), st.floats(0, 1))
def test_revised_reward_replaces_the_first(
    rewards: list[tuple[str, float]], before: float, then: float
) -> None:
    late = revise(after([*rewards, ("3", before)]), "3", before, then)
    early = after([*rewards, ("3", before)], revise(BanditState(), "3", before, then))
    assert late == early == after([*rewards, ("3", then)])


def test_state_survives_json() -> None:
    state = pulled(after([("3", 0.25), ("4", 1.0)]), "4", 7)
    assert msgspec.json.decode(msgspec.json.encode(state), type=BanditState) == state
    assert state.arm("4") == Arm(pulls=7, labels=1, gained_ppm=1_000_000)


@pytest.mark.parametrize("reward", [-0.1, 1.1, float("nan"), "1"])
def test_reward_outside_zero_and_one_is_refused(reward: Any) -> None:
    with pytest.raises(SchemaError, match="scale rewards to 0 to 1"):
        observe(BanditState(), "3", reward)


@pytest.mark.parametrize(
    ("rule", "output", "value", "reward"),
    [
        ("correct", 0.5, True, 1.0),
        ("correct", 0.4, True, 0.0),
        ("correct", {"a": 0.6, "b": 0.4}, "a", 1.0),
        ("correct", {"a": 0.6, "b": 0.4}, "new", 0.0),
        ("correct", {}, "a", 0.0),
        ("label", 0.4, True, 1.0),
        ("label", 0.4, 0.25, 0.25),
    ],
)
def test_reward_of_each_kind_of_label(
    rule: Any, output: Output, value: LabelValue, reward: float
) -> None:
    assert reward_of(rule, output, value) == reward


NUMBERS = st.floats(-1e308, 1e308)
SCALES = st.floats(1e-300, 1e300)


@given(NUMBERS, NUMBERS, SCALES)
def test_the_reward_of_an_error_is_one_that_bandits_take(
    output: float, truth: float, scale: float
) -> None:
    reward = reward_of("error", output, truth, scale)
    assert 0.0 <= reward <= 1.0
    assert reward == reward_of("error", truth, output, scale)
    assert observe(BanditState(), "3", reward).arm("3").labels == 1


@given(NUMBERS, NUMBERS, NUMBERS, SCALES)
def test_a_smaller_error_is_never_worth_less(
    truth: float, one: float, other: float, scale: float
) -> None:
    near, far = sorted((one, other), key=lambda output: abs(output - truth))
    assert reward_of("error", near, truth, scale) >= reward_of("error", far, truth, scale)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=30))
def test_below_the_scale_rewards_are_in_the_order_of_mean_errors(
    errors: list[tuple[float, float]],
) -> None:
    first, second = (
        sum(reward_of("error", pair[which], 0.0, 100.0) for pair in errors) for which in (0, 1)
    )
    mean = [sum(abs(pair[which]) for pair in errors) for which in (0, 1)]
    assert first - second == pytest.approx((mean[1] - mean[0]) / 100, abs=1e-9)


def test_one_wild_error_costs_one_label() -> None:
    rewards = [reward_of("error", output, 1.0, 2.0) for output in (1.0, 1.0, 1e308)]
    assert rewards == [1.0, 1.0, 0.0]


@given(st.lists(st.integers(0, 9), max_size=8), st.randoms())
def test_labels_without_a_reward_merge_in_any_order(offsets: list[int], random: Any) -> None:
    def counted(order: list[int]) -> BanditState:
        return merge(*(unrewarded(BanditState(), offset, f"label {offset}") for offset in order))

    mixed = counted(random.sample(offsets, len(offsets)))
    assert mixed == counted(offsets)
    found = mixed.unrewarded
    assert (found.labels, found.offset) == (len(offsets), min(offsets)) if found else not offsets


@pytest.mark.parametrize(
    ("rule", "output", "value"),
    [("correct", 3.5, 4.0), ("label", {"a": 1.0}, "a"), ("label", 1.0, 7.0), ("error", 1.0, 7.0)],
)
def test_label_without_a_reward_is_refused(rule: Any, output: Output, value: LabelValue) -> None:
    with pytest.raises(SchemaError, match=r"makes no reward|not within"):
        reward_of(rule, output, value)


@pytest.mark.parametrize(
    "arms",
    [
        [arm(0, 0), arm(0, 0), arm(0, 0)],
        [arm(50, 1_000), arm(62, 1_000)],
        [arm(5, 100), arm(600, 10_000)],
        [arm(0, 3), arm(5_000, 100_000)],
        [arm(0, 200), arm(200, 200), arm(100, 200)],
        [arm(50, 1_000), arm(55, 1_000), arm(45, 1_000), arm(5, 90), arm(6_100, 122_000)],
    ],
)
def test_thompson_equals_the_exact_integral(arms: list[Arm]) -> None:
    exact = [_chance_of_best(arms, which) for which in range(len(arms))]
    assert thompson(arms) == pytest.approx(exact, abs=3e-3)


def test_thompson_chooses_as_river_does() -> None:
    arms = {"3": (8, 100), "4": (12, 110), "5": (3, 20)}
    policy = river_bandit.ThompsonSampling(reward_obj=proba.Beta(1, 1), seed=7)
    for version, (gained, labels) in arms.items():
        for i in range(labels):
            policy.update(version, i < gained)
        theirs = policy._rewards[version]
        assert arm(gained, labels).posterior == (theirs.alpha, theirs.beta)
    drawn = Counter(policy.pull(list(arms)) for _ in range(20_000))
    shares = thompson([arm(*counts) for counts in arms.values()])
    assert [drawn[version] / 20_000 for version in arms] == pytest.approx(shares, abs=0.015)


@given(ARMS)
def test_shares_are_not_negative_and_come_to_one(arms: list[Arm]) -> None:
    for policy in (thompson, kl_ucb):
        shares = policy(arms)
        assert sum(shares) == pytest.approx(1, abs=1e-9)
        assert min(shares) >= 0


@given(ARMS)
def test_thompson_does_not_depend_on_the_order_of_versions(arms: list[Arm]) -> None:
    assert thompson(arms[::-1]) == pytest.approx(thompson(arms)[::-1], abs=1e-9)


def test_correction_that_comes_first_says_as_little_as_the_prior() -> None:
    early = revise(BanditState(), "3", 1.0, 0.0).arm("3")
    assert early.posterior == (1.0, 2.0)
    assert sum(thompson([early, Arm()])) == pytest.approx(1)
    assert sum(kl_ucb([early, Arm()])) == pytest.approx(1)


@pytest.mark.parametrize(
    ("arms", "shares"),
    [
        ([arm(0, 0), arm(9, 10)], (1.0, 0.0)),
        ([arm(5, 10), arm(500, 1_000)], (1.0, 0.0)),
        ([arm(5, 1_000), arm(500, 1_000)], (0.0, 1.0)),
        ([arm(5, 10), arm(5, 10)], (0.5, 0.5)),
        ([arm(10, 10), arm(10, 10)], (0.5, 0.5)),
    ],
)
def test_kl_ucb_shares_go_to_the_highest_bound(arms: list[Arm], shares: tuple[float, ...]) -> None:
    assert kl_ucb(arms) == shares


def _chance_of_best(arms: list[Arm], which: int) -> float:
    posteriors = [one.posterior for one in arms]
    mine, others = posteriors[which], posteriors[:which] + posteriors[which + 1 :]

    def below(quantile: float) -> float:
        rate = beta.ppf(quantile, *mine)
        return float(np.prod([beta.cdf(rate, *other) for other in others]))

    return float(quad(below, 0, 1, limit=500, epsabs=1e-7)[0])
