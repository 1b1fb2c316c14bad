"""Trials of versions with unknown rates, many at once: A/B tests and bandits under one loop.

Arrays have a row a trial and a column a version; the first version is the champion.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

import numpy as np
from scipy.optimize import brentq
from scipy.special import rel_entr
from scipy.stats import norm

__all__ = [
    "AlwaysValid",
    "Bandit",
    "Fixed",
    "Method",
    "OBrienFleming",
    "Played",
    "Trial",
    "obrien_fleming",
    "per_version",
    "play",
    "thompson_shares",
    "ucb_shares",
]

_STEPS = np.sinh(np.linspace(-3.3, 3.3, 41))


class Trial(NamedTuple):
    """What is tried, and on how much.

    Parameters
    ----------
    rates
        The true rate of each version.
    total
        How many requests there are, a multiple of the batch.
    batch
        After how many requests a method may move its shares.
    delay
        How many requests lie between a prediction and its label, in the mean: labels come as atoms
        decay, so not in order. 0 is at once.
    """

    rates: tuple[float, ...]
    total: int
    batch: int
    delay: int = 0

    @property
    def rounds(self) -> int:
        """How many batches there are."""
        return self.total // self.batch


class Method(Protocol):
    """A way to choose: :func:`play` asks for shares before each batch, and for a version in the end."""

    def shares(self, labels: np.ndarray, gained: np.ndarray, done: float) -> np.ndarray:
        """Give each version's share of the next batch, by the labels that came.

        Parameters
        ----------
        labels, gained
            How many came, and how many of them are a success.
        done
            How much of the trial is over, from 0 to 1.
        """

    def choose(self, labels: np.ndarray, gained: np.ndarray) -> np.ndarray:
        """Give the version that each trial ends with, when all labels came."""


class Played(NamedTuple):
    """What came of each trial.

    Parameters
    ----------
    chosen
        Which version it ends with.
    lead
        Which version has the highest rate among the labels.
    regret
        How many more successes the best version would have had, in expectation.
    labels, gained
        What was known at the end.
    """

    chosen: np.ndarray
    lead: np.ndarray
    regret: np.ndarray
    labels: np.ndarray
    gained: np.ndarray


def play(trial: Trial, method: Method, trials: int, rng: np.random.Generator) -> Played:
    """Play a trial many times."""
    rates = np.array(trial.rates)
    labels = np.zeros((trials, len(rates)), dtype=np.int64)
    gained, lost = labels.copy(), labels.copy()
    wins_to_come, losses_to_come = labels.copy(), labels.copy()
    regret = np.zeros(trials)
    comes = trial.batch / (trial.batch + trial.delay)
    for i in range(trial.rounds):
        shares = method.shares(gained + lost, gained, i / trial.rounds)
        pulls = rng.multinomial(trial.batch, shares)
        wins = rng.binomial(pulls, rates)
        regret += pulls @ (rates.max() - rates)
        wins_to_come += wins
        losses_to_come += pulls - wins
        came, missed = rng.binomial(wins_to_come, comes), rng.binomial(losses_to_come, comes)
        wins_to_come, losses_to_come = wins_to_come - came, losses_to_come - missed
        gained, lost = gained + came, lost + missed
    gained = gained + wins_to_come
    labels = gained + lost + losses_to_come
    lead = (gained / np.maximum(labels, 1)).argmax(axis=1)
    return Played(method.choose(labels, gained), lead, regret, labels, gained)


class Fixed:
    """An A/B test of fixed length: equal shares, and at the end the challenger that is surely better.

    Parameters
    ----------
    alpha
        Chance of a difference where there is none, to both sides, over all challengers (Bonferroni).
    """

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def shares(self, labels: np.ndarray, _: np.ndarray, __: float) -> np.ndarray:
        """Give equal ones."""
        return np.full(labels.shape, 1 / labels.shape[1])

    def choose(self, labels: np.ndarray, gained: np.ndarray) -> np.ndarray:
        """Take the best of the challengers that pass, or else the champion."""
        z, _ = _compared(labels, gained)
        return _surest(z, z > norm.isf(self._alpha / z.shape[1] / 2))


class _Sequential(ABC):
    """A test that is looked at on the way: once a challenger passes, it has all requests."""

    def __init__(self, trials: int) -> None:
        self.chosen = np.full(trials, -1)
        self.stopped_at = np.ones(trials)

    @abstractmethod
    def passing(self, labels: np.ndarray, gained: np.ndarray, done: float) -> np.ndarray:
        """Give the challenger that passes now, or 0; -1 where it is not looked at."""

    def shares(self, labels: np.ndarray, gained: np.ndarray, done: float) -> np.ndarray:
        """Give equal ones, until a challenger passes."""
        going = self.chosen < 0
        found = self.passing(labels, gained, done) if done > 0 else np.zeros_like(self.chosen)
        stops = going & (found > 0)
        self.chosen[stops] = found[stops]
        self.stopped_at[stops] = done
        versions = labels.shape[1]
        only = np.eye(versions)[self.chosen]
        return np.where(self.chosen[:, None] < 0, 1 / versions, only)

    def choose(self, labels: np.ndarray, gained: np.ndarray) -> np.ndarray:
        """Look for the last time at those that still go; the champion where none passes."""
        found = np.maximum(self.passing(labels, gained, 1.0), 0)
        return np.where(self.chosen < 0, found, self.chosen)


class OBrienFleming(_Sequential):
    """Looked at a few times, by boundaries that fall with the square root of what is known.

    O'Brien and Fleming, "A multiple testing procedure for clinical trials", 1979.
    """

    def __init__(self, trials: int, alpha: float, challengers: int, looks: int, total: int) -> None:
        super().__init__(trials)
        self._bound = obrien_fleming(alpha / challengers, looks)
        self._looks, self._taken, self._total = looks, 0, total

    def passing(self, labels: np.ndarray, gained: np.ndarray, done: float) -> np.ndarray:
        """Compare with the boundary at each look."""
        if int(done * self._looks + 1e-9) <= self._taken:
            return np.full(len(labels), -1)
        self._taken += 1
        z, _ = _compared(labels, gained)
        known = labels.sum(axis=1, keepdims=True) / self._total
        return _surest(z, z > self._bound / np.sqrt(known))


class AlwaysValid(_Sequential):
    """Looked at after each batch: the mixture sequential probability ratio test.

    Johari, Koomen, Pekelis and Walsh, "Always valid inference: continuous monitoring of A/B
    tests", 2022.

    Parameters
    ----------
    effect
        Deviation of the effects that the mixture is of.
    """

    def __init__(self, trials: int, alpha: float, challengers: int, effect: float) -> None:
        super().__init__(trials)
        self._least = math.log(challengers / alpha)
        self._effect = effect

    def passing(self, labels: np.ndarray, gained: np.ndarray, done: float) -> np.ndarray:
        """Compare the likelihood ratio with one over alpha."""
        del done
        z, variance = _compared(labels, gained)
        wider = variance + self._effect**2
        ratio = 0.5 * np.log(variance / wider) + 0.5 * z**2 * self._effect**2 / wider
        return _surest(z, (ratio > self._least) & (z > 0))


class Bandit:
    """The policies of ``headwater.spec.serving.bandit``, in arrays.

    Parameters
    ----------
    policy
        ``"thompson"`` or ``"ucb"``.
    explore
        The share that is dealt evenly.
    """

    def __init__(self, policy: str, explore: float) -> None:
        self._asked = thompson_shares if policy == "thompson" else ucb_shares
        self._explore = explore

    def shares(self, labels: np.ndarray, gained: np.ndarray, _: float) -> np.ndarray:
        """Ask the policy, and deal a part evenly."""
        return (1 - self._explore) * self._asked(labels, gained) + self._explore / labels.shape[1]

    def choose(self, labels: np.ndarray, gained: np.ndarray) -> np.ndarray:
        """Take the version that is likeliest to be the best."""
        return thompson_shares(labels, gained).argmax(axis=1)


def per_version(base: float, better: float, alpha: float, power: float) -> int:
    """Give how many requests each version needs, for a two-sided test of two proportions.

    >>> per_version(0.05, 0.0525, 0.05, 0.8)
    122124
    """
    mean = (base + better) / 2
    by_chance = norm.isf(alpha / 2) * math.sqrt(2 * mean * (1 - mean))
    to_find = norm.isf(1 - power) * math.sqrt(base * (1 - base) + better * (1 - better))
    return math.ceil(((by_chance + to_find) / (better - base)) ** 2)


def obrien_fleming(alpha: float, looks: int) -> float:
    """Give the boundary at the last of equally spaced looks, by integrating from look to look.

    Armitage, McPherson and Rowe, "Repeated significance tests on accumulating data", 1969.

    >>> round(obrien_fleming(0.05, 10), 3)
    2.087
    """

    def excess(bound: float) -> float:
        points = np.linspace(-bound * looks**0.5, bound * looks**0.5, 401)
        weights = np.full(401, points[1] - points[0])
        weights[[0, -1]] /= 2
        step = norm.pdf(points[:, None] - points) * weights
        density = norm.pdf(points)
        for _ in range(looks - 1):
            density = step @ density
        return float(1 - density @ weights - alpha)

    return float(brentq(excess, 1.0, 6.0))


def thompson_shares(labels: np.ndarray, gained: np.ndarray) -> np.ndarray:
    """Give the probability that each version is the best: ``thompson`` of headwater's, in arrays."""
    a, b = 1.0 + gained, 1.0 + labels - gained
    points = np.log(a / b)[..., None] + np.sqrt(1 / a + 1 / b)[..., None] * _STEPS
    points = np.sort(points.reshape(len(a), 1, -1), axis=2)
    logs = -(a + b)[..., None] * np.log1p(np.exp(-points)) - b[..., None] * points
    density = np.exp(logs - logs.max(axis=2, keepdims=True))
    masses = (density[..., 1:] + density[..., :-1]) * np.diff(points)
    masses /= masses.sum(axis=2, keepdims=True)
    below = masses.cumsum(axis=2) - masses / 2
    with np.errstate(invalid="ignore"):
        shares = np.nansum(masses * below.prod(axis=1, keepdims=True) / below, axis=2)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def ucb_shares(labels: np.ndarray, gained: np.ndarray) -> np.ndarray:
    """Give all to the highest upper confidence bound: ``kl_ucb`` of headwater's, in arrays."""
    known = np.log(np.maximum(labels.sum(axis=1, keepdims=True), 1))
    mean = gained / np.maximum(labels, 1)
    low, high = mean.copy(), np.ones_like(mean)
    for _ in range(50):
        middle = (low + high) / 2
        apart = rel_entr(mean, middle) + rel_entr(1 - mean, 1 - middle)
        within = labels * apart <= known
        low, high = np.where(within, middle, low), np.where(within, high, middle)
    low[labels == 0] = 1.0
    best = low == low.max(axis=1, keepdims=True)
    return np.asarray(best / best.sum(axis=1, keepdims=True))


def _compared(labels: np.ndarray, gained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give each challenger's z against the champion, and the variance of the difference, pooled."""
    counts = np.maximum(labels, 1)
    rates = gained / counts
    pooled = (gained[:, :1] + gained[:, 1:]) / (counts[:, :1] + counts[:, 1:])
    variance = pooled * (1 - pooled) * (1 / counts[:, :1] + 1 / counts[:, 1:])
    variance = np.maximum(variance, 1e-12)
    return (rates[:, 1:] - rates[:, :1]) / np.sqrt(variance), variance


def _surest(z: np.ndarray, passes: np.ndarray) -> np.ndarray:
    """Give the version with the highest z among those that pass, or 0, the champion."""
    return np.where(passes.any(axis=1), np.where(passes, z, -np.inf).argmax(axis=1) + 1, 0)
