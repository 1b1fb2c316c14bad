"""Routings, which choose the version that answers a request: plain data for ``spec/serving/plan.py``."""

from collections.abc import Callable, Collection
from typing import ClassVar, NamedTuple

import msgspec
from msgspec import UNSET

from headwater.spec.data.label import LabelRule
from headwater.spec.errors import DeclarationError, few
from headwater.spec.serving.bandit import BanditState, Policy, RewardRule, kl_ucb, thompson
from headwater.spec.serving.routing_checks import (
    check_not_champion,
    check_salt,
    check_scale,
    check_share,
    check_versions,
)
from headwater.spec.serving.serve_best import ServeBest

__all__ = ["ABTest", "Bandit", "Canary", "ChampionOnly", "Part", "Routing", "Shadow", "check_routing"]


class Part(NamedTuple):
    """A version's part of [0, 1), by which requests are dealt.

    Parameters
    ----------
    version
        Number of the version that answers it; None if the one that was meant cannot.
    share
        How long it is.
    """

    version: str | None
    share: float


Find = Callable[[str], str | None]
"""Gives the number of a version that can answer, by number or by word."""


class _Routing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every routing: by default the champion answers, and no other version predicts."""

    sticky: ClassVar[bool] = True
    """Whether a unit always meets the same version; else each prediction is dealt anew."""

    @property
    def named(self) -> tuple[str, ...]:
        """The versions that are named, by number or by word."""
        return ()

    @property
    def beside(self) -> tuple[str, ...]:
        """The versions that predict beside the answer, by number or by word."""
        return ()

    def deal(self, find: Find, state: BanditState) -> tuple[Part, ...]:
        """Return the parts in a fixed order; the champion answers the rest.

        ``plan`` calls it when the routing, the champion or what a bandit knows has changed.
        """
        del find, state
        return ()


class ChampionOnly(_Routing, frozen=True, tag="champion_only"):
    """The champion answers every request."""


class Shadow(_Routing, frozen=True, tag="shadow"):
    """The champion answers; other versions predict every request beside it, and never answer.

    Parameters
    ----------
    versions
        Those that predict beside it: numbers, or ``"challenger"``.
    serve_best
        Promote the best of them when it is better than the champion; None leaves it to a person.

    Raises
    ------
    DeclarationError
        If no version is named, or the champion is.
    """

    versions: tuple[str, ...]
    serve_best: ServeBest | None = None

    def __post_init__(self) -> None:
        check_versions("Shadow", self.versions, least=1)
        check_not_champion("Shadow", self.versions)
        if self.serve_best is not None and not isinstance(self.serve_best, ServeBest):
            raise DeclarationError(
                f"Shadow(serve_best={self.serve_best!r}) is not a ServeBest",
                hint="write serve_best=ServeBest(margin=0.01, least=1_000)",
            )

    @property
    def named(self) -> tuple[str, ...]:
        """The shadows."""
        return self.versions

    @property
    def beside(self) -> tuple[str, ...]:
        """The shadows."""
        return self.versions


class Canary(_Routing, frozen=True, tag="canary"):
    """One version answers a share of the units, always the same ones; the champion answers the others.

    A larger share keeps the units of a smaller one.

    Parameters
    ----------
    share
        How much of the units it answers, above 0 and below 1.
    version
        Which one: a number, or ``"challenger"``.
    salt
        Another salt deals the units anew.

    Raises
    ------
    DeclarationError
        If the share is none, or the version is the champion.
    """

    share: float
    version: str = "challenger"
    salt: str = ""

    def __post_init__(self) -> None:
        check_versions("Canary", (self.version,), least=1)
        check_not_champion("Canary", (self.version,))
        check_share("Canary", self.share)
        check_salt("Canary", self.salt)

    @property
    def named(self) -> tuple[str, ...]:
        """The canary."""
        return (self.version,)

    def deal(self, find: Find, state: BanditState) -> tuple[Part, ...]:
        """Return the canary's part, the first, so that a larger share keeps its units."""
        del state
        return (Part(find(self.version), self.share),)


class ABTest(_Routing, frozen=True, tag="ab_test"):
    """Versions answer fixed shares of the units, each always the same ones.

    Parameters
    ----------
    shares
        The share of each version, by number or by word; together 1. The share of a version that cannot
        answer goes to the champion.
    salt
        Another salt deals the units anew, so that a test does not inherit the groups of the last one.

    Raises
    ------
    DeclarationError
        If there are fewer than two versions, or the shares are not together 1.
    """

    shares: dict[str, float]
    salt: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.shares, dict):
            raise DeclarationError(
                f"ABTest(shares={self.shares!r}) is not a share by version",
                hint='write shares={"champion": 0.5, "challenger": 0.5}',
            )
        check_versions("ABTest", tuple(self.shares), least=2)
        for share in self.shares.values():
            check_share("ABTest", share)
        if abs(sum(self.shares.values()) - 1) > 1e-9:
            raise DeclarationError(
                f"the shares of ABTest are together {sum(self.shares.values()):g}",
                hint='write shares that are together 1, as in {"champion": 0.9, "challenger": 0.1}',
            )
        check_salt("ABTest", self.salt)

    @property
    def named(self) -> tuple[str, ...]:
        """The versions that have a share."""
        return tuple(self.shares)

    def deal(self, find: Find, state: BanditState) -> tuple[Part, ...]:
        """Return the part of each version, in the order of the declaration."""
        del state
        return tuple(Part(find(name), share) for name, share in self.shares.items())


class Bandit(_Routing, frozen=True, tag="bandit"):
    """Versions answer by a bandit's policy; rewards may come late, and in any order.

    Each prediction is dealt anew, since the shares move: what a unit met before says nothing about what
    it meets next, and the propensity is a true one.

    Parameters
    ----------
    versions
        Those that answer, by number or by word.
    policy
        ``"thompson"`` answers with a version as often as it is likely to be the best (Thompson
        sampling); ``"ucb"`` with the one that may be the best (KL-UCB).
    explore
        The share that is dealt evenly over the versions, whatever the policy says, so that any policy
        can be evaluated on what was logged, and none is given up for bad luck.
    reward
        What a label is worth: ``"correct"`` for classes, ``"error"`` for numbers, or ``"label"``, for
        labels from 0 to 1 that the answer brings about. ``reward_of`` of ``spec/serving/bandit.py``
        says how much.
    scale
        With ``reward="error"``, the error from which on an answer is worth nothing, in the label's unit.
        Take one that few errors pass: below it, the versions are in the order of their mean errors.
    salt
        Another salt draws anew.

    Raises
    ------
    DeclarationError
        If there are fewer than two versions, the policy or the reward is not known, or the scale does
        not go with the reward.
    """

    sticky: ClassVar[bool] = False
    versions: tuple[str, ...]
    policy: Policy = "thompson"
    explore: float = 0.05
    reward: RewardRule = "correct"
    scale: float | None = None
    salt: str = ""

    def __post_init__(self) -> None:
        check_versions("Bandit", self.versions, least=2)
        if self.policy not in ("thompson", "ucb"):
            raise DeclarationError(
                f"Bandit(policy={self.policy!r}) is not known", hint='write policy="thompson" or "ucb"'
            )
        if self.reward not in ("correct", "label", "error"):
            raise DeclarationError(
                f"Bandit(reward={self.reward!r}) is not known",
                hint='write reward="correct", "label" or "error"',
            )
        check_scale(self.reward, self.scale)
        check_share("Bandit", self.explore, field="explore")
        check_salt("Bandit", self.salt)

    @property
    def named(self) -> tuple[str, ...]:
        """The versions that answer."""
        return self.versions

    def deal(self, find: Find, state: BanditState) -> tuple[Part, ...]:
        """Return the policy's shares, mixed with an even share for exploration."""
        versions = dict.fromkeys(filter(None, map(find, self.versions)))
        if not versions:
            return ()
        arms = [state.arm(version) for version in versions]
        policy_shares = thompson(arms) if self.policy == "thompson" else kl_ucb(arms)
        evenly = self.explore / len(arms)
        shares = ((1 - self.explore) * share + evenly for share in policy_shares)
        return tuple(map(Part, versions, shares))


Routing = ChampionOnly | Shadow | Canary | ABTest | Bandit
"""Any one of them; in JSON the field ``type`` says which."""


def check_routing(
    routing: object, task: str, metrics: Collection[str], label: LabelRule | None = None
) -> None:
    """Check that a routing fits a pipeline.

    Parameters
    ----------
    routing
        What was declared, or asked for at run time.
    task
        The pipeline's.
    metrics
        The metrics that judge such a task.
    label
        The pipeline's label rule, whose range says what labels come.

    Raises
    ------
    DeclarationError
        If it is no routing, or goes by what the task does not have.
    """
    if not isinstance(routing, Routing):
        raise DeclarationError(
            f"routing={routing!r} is no routing",
            hint='write routing=Canary(share=0.05), say, or Shadow(versions=("challenger",))',
        )
    if isinstance(routing, Bandit) and (task, routing.reward) in _NO_REWARD:
        raise DeclarationError(
            f"Bandit(reward={routing.reward!r}) makes no reward of the labels of a {task} task",
            hint=_NO_REWARD[task, routing.reward],
        )
    if isinstance(routing, Bandit) and routing.reward == "label" and label is not None:
        _check_range(label)
    rule = routing.serve_best if isinstance(routing, Shadow) else None
    if rule is not None and rule.metric is not None and rule.metric not in metrics:
        raise DeclarationError(
            f"ServeBest goes by {rule.metric!r}, which does not judge a {task} task",
            hint=f"write one of {few(metrics)}",
        )


def _check_range(label: LabelRule) -> None:
    """Check that a declared range of labels lies within that of rewards."""
    below = label.low is not UNSET and label.low < 0
    if below or (label.high is not UNSET and label.high > 1):
        raise DeclarationError(
            f'Bandit(reward="label") needs labels from 0 to 1, and they are {label.range_words}',
            hint='write reward="error", scale=10.0, say',
        )


_NO_REWARD = {
    (
        "regression",
        "correct",
    ): 'write reward="error", scale=10.0, say; or "label", for labels of 0 to 1',
    ("binary", "error"): 'write reward="correct"; or "label", where the answer brings the label about',
    ("multiclass", "error"): 'write reward="correct"',
    ("multiclass", "label"): 'write reward="correct"',
}
