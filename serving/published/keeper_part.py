"""Which pipelines a keeper keeps: all but those that have a keeper of their own, or one of those."""

import os

import msgspec

__all__ = ["VARIABLE", "KeeperPart", "part_of_this_keeper"]

VARIABLE = "HEADWATER_KEEPER_PART"
"""The environment variable that tells a keeper its part."""


class KeeperPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of one keeper.

    Parameters
    ----------
    without
        Names of the pipelines that others keep.
    only
        Name of the one pipeline that it keeps; empty for all others.
    reason
        Why that pipeline has a keeper of its own, for a person.
    """

    without: tuple[str, ...] = ()
    only: str = ""
    reason: str = ""


def part_of_this_keeper() -> KeeperPart:
    """Return the part that the environment tells; all pipelines if it tells none."""
    return msgspec.json.decode(os.environ.get(VARIABLE, "{}"), type=KeeperPart)
