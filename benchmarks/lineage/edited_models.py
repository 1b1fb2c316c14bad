"""Models of the claim ``edits``, and the functions that its features name, in one file."""

from typing import Any

__all__ = ["first", "fitted", "half", "other", "same", "whole"]


def first() -> object:
    """Make a tree that takes features of any type."""
    from river import tree  # noqa: PLC0415

    return tree.HoeffdingTreeClassifier(grace_period=20)


def other() -> object:
    """Make the same tree with another parameter."""
    from river import tree  # noqa: PLC0415

    return tree.HoeffdingTreeClassifier(grace_period=30)


def same() -> object:
    """Make the first tree by another function."""
    return first()


def fitted(value: Any) -> float:
    """Make a number of a text, an int or a bool."""
    return float(len(value)) if isinstance(value, str) else float(value)


def whole(value: Any) -> int:
    """Make a whole number of any value."""
    return int(fitted(value))


def half(recorded: dict[str, Any]) -> float:
    """Make a value for an example that was recorded without the feature."""
    return sum(value is not None for value in recorded.values()) / 2
