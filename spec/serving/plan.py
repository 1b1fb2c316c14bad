"""The plan of a routing at one moment: the version that answers a request, and its propensity.

A :class:`RoutingPlan` is made when the routing changes, when the champion does, or when a bandit learned
something. A request then costs one hash and one look-up.
"""

from bisect import bisect_right
from collections.abc import Collection
from hashlib import blake2b
from itertools import accumulate

import msgspec

from headwater.spec.data.records import Role
from headwater.spec.serving.bandit import BanditState
from headwater.spec.serving.routing import ABTest, Bandit, Canary, Routing

__all__ = ["Aliases", "Choice", "RoutingPlan", "plan", "route", "uniform"]

_SLACK = 1e-9  # of shares that are together 1 but for rounding


class Aliases(msgspec.Struct, frozen=True):
    """The versions that are champion and challenger at one moment.

    Parameters
    ----------
    champion
        Number of the version that serves.
    challenger
        Number of the one that may replace it, or None.
    """

    champion: str
    challenger: str | None = None

    def version(self, name: str) -> str | None:
        """Return the number that a name stands for; None if there is no challenger."""
        if name == "challenger":
            return self.challenger
        return self.champion if name == "champion" else name


class Choice(msgspec.Struct, frozen=True, gc=False):
    """The version that answers a request, with its propensity.

    Parameters
    ----------
    version
        Its number.
    role
        ``"champion"``, or ``"challenger"`` for any other that answers.
    propensity
        The probability with which it was chosen, in (0, 1].
    """

    version: str
    role: Role
    propensity: float


class RoutingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of a routing, valid until routing, champion or bandit change.

    Parameters
    ----------
    choices
        By the parts into which [0, 1) is dealt; a version may have several.
    bounds
        Where the next part begins, one fewer than there are parts.
    shadows
        Numbers of the versions that predict beside the answer; they have the role ``"shadow"`` and the
        propensity 1.
    sticky
        Whether a unit always meets the same version.
    key
        Salts the hash.
    """

    choices: tuple[Choice, ...]
    bounds: tuple[float, ...] = ()
    shadows: tuple[str, ...] = ()
    sticky: bool = True
    key: bytes = b""

    @property
    def shares(self) -> dict[str, float]:
        """The probability of each version that may answer."""
        return {choice.version: choice.propensity for choice in self.choices}


def plan(
    routing: Routing,
    aliases: Aliases,
    state: BanditState = BanditState(),  # noqa: B008 - frozen, and never changed
    *,
    pipeline: str = "",
    loaded: Collection[str] | None = None,
) -> RoutingPlan:
    """Make the plan of a routing.

    Parameters
    ----------
    routing
        What was declared.
    aliases
        Who is champion and challenger now.
    state
        What a bandit knows.
    pipeline
        Name of the pipeline: each deals its units in its own way.
    loaded
        Numbers of the versions that can answer; None is all. The champion answers in the place of any
        other.

    Examples
    --------
    >>> plan(Canary(share=0.25), Aliases("3", "4")).shares
    {'4': 0.25, '3': 0.75}
    >>> plan(Canary(share=0.25), Aliases("3")).shares
    {'3': 1.0}
    """
    champion = aliases.champion

    def find(name: str) -> str | None:
        version = aliases.version(name)
        return version if loaded is None or version in loaded else None

    parts = routing.deal(find, state)
    versions = [part.version or champion for part in parts]
    shares = [part.share for part in parts]
    if (left := 1.0 - sum(shares)) > _SLACK:
        versions.append(champion)
        shares.append(left)
    beside = dict.fromkeys(filter(None, map(find, routing.beside)))
    salt = routing.salt if isinstance(routing, Canary | ABTest | Bandit) else ""
    return RoutingPlan(
        choices=_choices(versions, shares, champion),
        bounds=tuple(accumulate(shares))[:-1],
        shadows=tuple(version for version in beside if version != champion),
        sticky=routing.sticky,
        key=blake2b(f"{pipeline}\0{salt}".encode(errors="surrogatepass"), digest_size=16).digest(),
    )


def route(its: RoutingPlan, prediction: str, unit: str | None = None) -> Choice:
    """Return the version that answers a request.

    The same request is answered by the same version as long as the plan stands. Who keeps what was
    answered need not ask again: a bandit's plan moves.

    Parameters
    ----------
    its
        The plan.
    prediction
        The prediction's id.
    unit
        Id of the person or thing that is to meet the same version each time; the prediction's own where
        it is not given. A bandit deals by the prediction in any case.

    Examples
    --------
    >>> canary = plan(Canary(share=0.25), Aliases("3", "4"), pipeline="flights")
    >>> route(canary, "p-1", "n-7"), route(canary, "p-2", "n-7").version
    (Choice(version='3', role='champion', propensity=0.75), '3')
    """
    if not its.bounds:
        return its.choices[0]
    dealt_by = unit if its.sticky and unit is not None else prediction
    return its.choices[bisect_right(its.bounds, uniform(its.key, dealt_by))]


def uniform(key: bytes, text: str) -> float:
    """Hash a text to [0, 1) by keyed BLAKE2b, with the 53 bits that a float holds.

    >>> round(uniform(b"", "n-7"), 6)
    0.996171
    """
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8, key=key).digest()
    return (int.from_bytes(digest) >> 11) * 2.0**-53


def _choices(versions: list[str], shares: list[float], champion: str) -> tuple[Choice, ...]:
    whole = dict.fromkeys(versions, 0.0)
    for version, share in zip(versions, shares, strict=True):
        whole[version] += share
    return tuple(
        Choice(
            version=version,
            role="champion" if version == champion else "challenger",
            propensity=min(1.0, whole[version]),
        )
        for version in versions
    )
