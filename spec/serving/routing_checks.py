"""Checks that the kinds of routing share; the error of a check says what to write."""

import math

from headwater.spec.errors import DeclarationError

__all__ = ["check_not_champion", "check_salt", "check_scale", "check_share", "check_versions"]


def check_versions(what: str, names: object, *, least: int) -> None:
    """Check that at least `least` versions are named, each once, by number or by word."""
    if not isinstance(names, tuple) or len(names) < least:
        raise DeclarationError(
            f"{what} names {names!r}, which is not {least} or more versions",
            hint='write ("champion", "challenger"), or ("7", "9")',
        )
    for name in names:
        if name not in ("champion", "challenger") and not _is_number(name):
            raise DeclarationError(
                f"{what} names {name!r}, which is no version",
                hint='write its number, as in "7", or "champion" or "challenger"',
            )
    if len(set(names)) < len(names):
        raise DeclarationError(f"{what} names a version twice: {names!r}", hint="name each one once")


def _is_number(name: object) -> bool:
    return isinstance(name, str) and name.isascii() and name.isdecimal() and not name.startswith("0")


def check_not_champion(what: str, names: tuple[str, ...]) -> None:
    """Check that the champion is not named beside itself."""
    if "champion" in names:
        raise DeclarationError(
            f"{what} names the champion, which answers anyway", hint='write "challenger", or a number'
        )


def check_share(what: str, share: object, *, field: str = "share") -> None:
    """Check that a share lies between 0 and 1, both excluded."""
    if not isinstance(share, float) or not 0 < share < 1:
        raise DeclarationError(
            f"{what} has {field}={share!r}, which is not between 0 and 1",
            hint=f"write {field}=0.05, say",
        )


def check_scale(reward: str, scale: object) -> None:
    """Check that a bandit has a scale if its reward is an error, and has none if not."""
    if reward != "error" and scale is not None:
        raise DeclarationError(
            f"Bandit(scale={scale!r}) goes with an error, and the reward is {reward!r}",
            hint='leave scale out, or write reward="error"',
        )
    sound = isinstance(scale, float | int) and not isinstance(scale, bool) and 0 < scale < math.inf
    if reward == "error" and not sound:
        raise DeclarationError(
            f"Bandit(scale={scale!r}) is not an error above 0",
            hint='write reward="error", scale=10.0, if an answer that is off by 10 is worth nothing',
        )


def check_salt(what: str, salt: object) -> None:
    """Check that a salt is text."""
    if not isinstance(salt, str):
        raise DeclarationError(f"{what}(salt={salt!r}) is not text", hint='write salt="autumn", say')
