"""The counts of a bandit, and the shares that its policies make of them. Pure.

A policy answers with the share of each version, rather than with a version. Who draws by these shares
plays the policy, and the share is the propensity: it is exact, whatever the integration is worth.
"""

import math
from collections.abc import Sequence
from typing import Literal, TypeGuard

import msgspec
from msgspec.structs import replace

from headwater.spec.data.records import LabelValue, Output
from headwater.spec.errors import SchemaError

__all__ = [
    "Arm",
    "BanditState",
    "Policy",
    "RewardRule",
    "Unrewarded",
    "kl_ucb",
    "merge",
    "observe",
    "pulled",
    "retract",
    "revise",
    "reward_of",
    "thompson",
    "unrewarded",
    "without_rewards",
]

Policy = Literal["thompson", "ucb"]
RewardRule = Literal["correct", "label", "error"]

_WHOLE = 1_000_000
_POINTS = 41
_REACH = 3.3
_STEPS = tuple(math.sinh(_REACH * (2 * i / (_POINTS - 1) - 1)) for i in range(_POINTS))


class Arm(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The counts of one version.

    Parameters
    ----------
    pulls
        How often it was chosen.
    labels
        How many of these have a reward.
    gained_ppm
        Sum of the rewards in millionths: whole numbers add up to the same in any order.
    """

    pulls: int = 0
    labels: int = 0
    gained_ppm: int = 0

    def __add__(self, other: "Arm") -> "Arm":
        return Arm(
            pulls=self.pulls + other.pulls,
            labels=self.labels + other.labels,
            gained_ppm=self.gained_ppm + other.gained_ppm,
        )

    @property
    def posterior(self) -> tuple[float, float]:
        """Both parameters of its Beta distribution, from a uniform prior.

        A part of the counts may have a correction and not yet what it corrects: then it says as little
        as the prior.

        >>> Arm(pulls=120, labels=100, gained_ppm=5_000_000).posterior
        (6.0, 96.0)
        """
        gained = self.gained_ppm / _WHOLE
        return 1.0 + max(gained, 0.0), 1.0 + max(self.labels - gained, 0.0)


class Unrewarded(msgspec.Struct, frozen=True, kw_only=True):
    """The labels that the rule made no reward of.

    Parameters
    ----------
    labels
        How many.
    offset, what
        The first one's offset, and why it has no reward.
    """

    labels: int
    offset: int
    what: str

    def __add__(self, other: "Unrewarded") -> "Unrewarded":
        first = min(self, other, key=lambda one: (one.offset, one.what))
        return replace(first, labels=self.labels + other.labels)


class BanditState(msgspec.Struct, frozen=True):
    """The counts of each version, which processes and restarts merge by adding.

    Parameters
    ----------
    arms
        By version number. A version that is not here is unknown.
    unrewarded
        The labels without a reward, which no arm counts; None if there are none.
    """

    arms: dict[str, Arm] = {}
    unrewarded: Unrewarded | None = None

    def arm(self, version: str) -> Arm:
        """Return the counts of one version."""
        return self.arms.get(version, _UNKNOWN)


_UNKNOWN = Arm()


def pulled(state: BanditState, version: str, times: int = 1) -> BanditState:
    """Count that a version was chosen."""
    return _plus(state, version, Arm(pulls=times))


def observe(state: BanditState, version: str, reward: float) -> BanditState:
    """Count a reward, whenever it comes.

    Parameters
    ----------
    state
        What was known.
    version
        Which version had been chosen.
    reward
        From 0 to 1. What lies between counts as a part of a success, and is kept to the millionth.

    Raises
    ------
    SchemaError
        If the reward is not within 0 and 1.

    Examples
    --------
    >>> observe(BanditState(), "7", 1.0).arm("7")
    Arm(pulls=0, labels=1, gained_ppm=1000000)
    """
    return _plus(state, version, Arm(labels=1, gained_ppm=_ppm(reward)))


def revise(state: BanditState, version: str, before: float, after: float) -> BanditState:
    """Replace a reward that was observed, or will be, since its label was revised.

    Raises
    ------
    SchemaError
        If a reward is not within 0 and 1.
    """
    return _plus(state, version, Arm(gained_ppm=_ppm(after) - _ppm(before)))


def retract(state: BanditState, version: str, reward: float) -> BanditState:
    """Take back a reward that was observed, since its label makes none any more.

    Raises
    ------
    SchemaError
        If the reward is not within 0 and 1.

    Examples
    --------
    >>> retract(observe(BanditState(), "7", 1.0), "7", 1.0).arm("7")
    Arm(pulls=0, labels=0, gained_ppm=0)
    """
    return _plus(state, version, Arm(labels=-1, gained_ppm=-_ppm(reward)))


def without_rewards(state: BanditState) -> BanditState:
    """Return how often each version was chosen, without any reward, to count rewards anew."""
    return BanditState({version: Arm(pulls=arm.pulls) for version, arm in state.arms.items()})


def merge(*states: BanditState) -> BanditState:
    """Add what several processes counted, each from nothing.

    >>> merge(observe(BanditState(), "7", 1.0), pulled(BanditState(), "7")).arm("7")
    Arm(pulls=1, labels=1, gained_ppm=1000000)
    """
    arms: dict[str, Arm] = {}
    lacking: Unrewarded | None = None
    for state in states:
        for version, arm in state.arms.items():
            arms[version] = arms.get(version, _UNKNOWN) + arm
        lacking = _sum(lacking, state.unrewarded)
    return BanditState(arms, lacking)


def unrewarded(state: BanditState, offset: int, what: str) -> BanditState:
    """Count a label that the rule makes no reward of.

    >>> unrewarded(unrewarded(BanditState(), 7, "a"), 9, "b").unrewarded
    Unrewarded(labels=2, offset=7, what='a')
    """
    one = Unrewarded(labels=1, offset=offset, what=what)
    return replace(state, unrewarded=_sum(state.unrewarded, one))


def reward_of(rule: RewardRule, output: Output, value: LabelValue, scale: float | None = None) -> float:
    """Make a reward of a label.

    The policies need rewards within 0 and 1. That of an error is linear up to the scale: versions whose
    errors stay below it are in the order of their mean absolute errors, which a curve that squashes
    errors would not keep. Beyond the scale it is cut off, so that one wild error costs no more than a
    whole failure: truncation, as Bubeck, Cesa-Bianchi and Lugosi do with heavy tails ("Bandits with
    heavy tail", IEEE Transactions on Information Theory 59, 2013).

    Parameters
    ----------
    rule
        ``"correct"``: 1 where the likeliest class is the label. ``"label"``: the label itself, where the
        version's answer brings it about, as with a click. ``"error"``: 1 where a number is the label,
        and 0 where it is off by the scale or more.
    output, value
        What was answered, and the truth.
    scale
        With ``"error"``, the error from which on an answer is worth nothing, in the label's unit.

    Raises
    ------
    SchemaError
        If the rule makes no reward of such a label.

    Examples
    --------
    >>> reward_of("correct", 0.2, False), reward_of("correct", {"a": 0.9, "b": 0.1}, "b")
    (1.0, 0.0)
    >>> reward_of("label", 0.2, True)
    1.0
    >>> [reward_of("error", 12.0, truth, scale=4.0) for truth in (12.0, 13.0, 20.0)]
    [1.0, 0.75, 0.0]
    """
    if rule == "correct" and isinstance(output, dict):
        return float(max(output, key=output.__getitem__, default=None) == value)
    if rule == "correct" and isinstance(value, bool) and isinstance(output, float | int):
        return float((output >= 0.5) == value)
    if rule == "label" and isinstance(value, bool | float | int):
        return _ppm(value) / _WHOLE
    if rule == "error" and scale is not None and _is_number(value) and _is_number(output):
        return 1.0 - min(abs(float(output) - float(value)) / scale, 1.0)
    raise SchemaError(
        f"the rule {rule!r} makes no reward of the label {value!r}",
        hint='route by reward="correct" with classes, by reward="error" with a scale for numbers, or by '
        'reward="label" with labels from 0 to 1',
    )


def thompson(arms: Sequence[Arm]) -> tuple[float, ...]:
    """Return the probability that each version is the best, by its counts.

    To draw a rate from each posterior and take the version with the highest (Thompson, "On the
    likelihood that one unknown probability exceeds another", 1933) is to take each with this
    probability. Here it is integrated: over the log-odds, where a Beta posterior looks much like a
    bell, on points that lie dense around each version's mode and reach thirteen deviations to either
    side.

    >>> [round(share, 3) for share in thompson([Arm(), Arm(labels=10, gained_ppm=5_000_000)])]
    [0.5, 0.5]
    >>> few, many = Arm(labels=100, gained_ppm=5_000_000), Arm(labels=10_000, gained_ppm=600_000_000)
    >>> [round(share, 3) for share in thompson([few, many])]
    [0.43, 0.57]
    """
    posteriors = [arm.posterior for arm in arms]
    points = sorted(
        math.log(a / b) + math.sqrt(1 / a + 1 / b) * step for a, b in posteriors for step in _STEPS
    )
    masses = [_masses(a, b, points) for a, b in posteriors]
    below = [_below(its) for its in masses]
    all_below = [math.prod(each) for each in zip(*below, strict=True)]
    shares = [
        sum(m * p / f for m, p, f in zip(its, all_below, fs, strict=True) if f > 0)
        for its, fs in zip(masses, below, strict=True)
    ]
    total = sum(shares)
    return tuple(share / total for share in shares)


def kl_ucb(arms: Sequence[Arm]) -> tuple[float, ...]:
    """Return a share of 1 for the version with the highest upper confidence bound; ties share evenly.

    The bound is the highest rate that the rewards do not speak against: KL-UCB (Garivier and Cappé,
    "The KL-UCB algorithm for bounded stochastic bandits and beyond", 2011), with c = 0 as they advise.
    It goes by rewards that came, as Joulani, György and Szepesvári do with delays ("Online learning
    under delayed feedback", 2013). A version without any has the bound 1.

    >>> kl_ucb([Arm(), Arm(), Arm(labels=10, gained_ppm=5_000_000)])
    (0.5, 0.5, 0.0)
    """
    known = math.log(max(1, sum(arm.labels for arm in arms)))
    bounds = [_upper_bound(arm, known) for arm in arms]
    highest = max(bounds)
    best = bounds.count(highest)
    return tuple(1 / best if bound == highest else 0.0 for bound in bounds)


def _masses(a: float, b: float, points: Sequence[float]) -> list[float]:
    """Return the probability of each stretch between two points, by trapezoids."""
    logs = [(a + b) * _log_odds_to_log(z) - b * z for z in points]
    highest = max(logs)
    density = [math.exp(log - highest) for log in logs]
    stretches = range(len(points) - 1)
    masses = [(density[i] + density[i + 1]) * (points[i + 1] - points[i]) for i in stretches]
    total = sum(masses)
    return [mass / total for mass in masses]


def _below(masses: Sequence[float]) -> list[float]:
    """Return the probability below the middle of each stretch."""
    found, sum_before = [], 0.0
    for mass in masses:
        found.append(sum_before + mass / 2)
        sum_before += mass
    return found


def _log_odds_to_log(z: float) -> float:
    """Return the logarithm of the probability with log-odds `z`."""
    return -math.log1p(math.exp(-z)) if z > -700 else z


def _upper_bound(arm: Arm, known: float) -> float:
    if arm.labels <= 0:
        return 1.0
    mean = min(max(arm.gained_ppm / _WHOLE / arm.labels, 0.0), 1.0)
    low, high = mean, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        within = arm.labels * _divergence(mean, middle) <= known
        low, high = (middle, high) if within else (low, middle)
    return low


def _divergence(p: float, q: float) -> float:
    """Return the Kullback-Leibler divergence between coins that fall with `p` and with `q`."""
    if q >= 1.0:
        return 0.0 if p >= 1.0 else math.inf
    heads = p * math.log(p / q) if p > 0 else 0.0
    tails = (1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0
    return heads + tails


def _plus(state: BanditState, version: str, more: Arm) -> BanditState:
    return replace(state, arms=state.arms | {version: state.arm(version) + more})


def _sum(one: Unrewarded | None, other: Unrewarded | None) -> Unrewarded | None:
    return one + other if one is not None and other is not None else one or other


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, float | int) and not isinstance(value, bool)


def _ppm(reward: float) -> int:
    if not isinstance(reward, bool | float | int) or not 0 <= reward <= 1:
        raise SchemaError(f"reward {reward!r} is not within 0 and 1", hint="scale rewards to 0 to 1")
    return round(reward * _WHOLE)
