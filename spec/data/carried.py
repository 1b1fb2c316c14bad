"""What a feature says of older examples, as a declaration keeps it: names, and functions by name."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from msgspec import UNSET, UnsetType

__all__ = ["Function", "carried"]

Function = Callable[[Any], object]


def carried(
    was: str | Sequence[str] | None,
    default: float | str | bool | None,
    fill: Function | None,
    convert: Function | None,
) -> tuple[
    tuple[str, ...] | UnsetType, float | int | str | bool | UnsetType, str | UnsetType, str | UnsetType
]:
    """Return what says where older examples have a feature from, with UNSET for None."""
    names = tuple(was) if isinstance(was, list | tuple) else (was,)
    return (
        UNSET if was is None else cast("tuple[str, ...]", names),  # or refused
        UNSET if default is None else default,
        UNSET if fill is None else _named(fill),
        UNSET if convert is None else _named(convert),
    )


def _named(function: object) -> str:
    """Return a function's module and name, by which it is found; of a type of Python's its name."""
    if function in (float, int, str, bool):
        return str(getattr(function, "__name__", ""))
    module, name = (getattr(function, one, "") for one in ("__module__", "__qualname__"))
    return f"{module}:{name}"
