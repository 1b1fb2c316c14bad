"""Features by kind. Only request features are served yet; the shape of the others is settled."""

import re
from typing import Literal

import msgspec

from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError

__all__ = [
    "BatchFeature",
    "Dtype",
    "Feature",
    "FeatureKind",
    "RequestFeature",
    "StreamingFeature",
    "python_type",
]

Dtype = Literal["float", "int", "str", "bool"]

_PYTHON: dict[str, type] = {"float": float, "int": int, "str": str, "bool": bool}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


def python_type(dtype: Dtype) -> type:
    """Give the Python type that carries a value of `dtype`."""
    return _PYTHON[dtype]


class _Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    dtype: Dtype
    nullable: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise DeclarationError(
                f"feature name {self.name!r} is not a name",
                hint="write letters, digits and underscores, such as 'hour_of_day'",
            )
        if self.dtype not in _PYTHON:
            raise DeclarationError(
                f"feature {self.name!r} has dtype {self.dtype!r}",
                hint="write one of 'float', 'int', 'str' and 'bool'",
            )


class RequestFeature(_Base, frozen=True, forbid_unknown_fields=True, tag="request"):
    """Arrives with the call.

    Parameters
    ----------
    name
        Name under which the model sees it.
    dtype
        ``"float"``, ``"int"`` (64 bit), ``"str"`` or ``"bool"``.
    nullable
        Whether None may be served.
    """


class BatchFeature(_Base, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="batch"):
    """Is looked up by entity key in a table that a flow fills. Reserved: no pipeline can use it yet.

    Parameters
    ----------
    entity
        Names of the entity keys that find it.
    table
        The table it is looked up in.
    """

    entity: tuple[str, ...]
    table: str


class StreamingFeature(_Base, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="streaming"):
    """Is a windowed aggregate of events. Reserved: no pipeline can use it yet.

    Parameters
    ----------
    entity
        Names of the entity keys by which events are grouped.
    events
        The stream of events.
    aggregate
        How the window becomes one value.
    window
        How far back events count.
    """

    entity: tuple[str, ...]
    events: str
    aggregate: Literal["count", "sum", "mean", "min", "max", "last"]
    window: Duration

    def __post_init__(self) -> None:
        _Base.__post_init__(self)
        duration(self.window, "window")


FeatureKind = RequestFeature | BatchFeature | StreamingFeature


def Feature(name: str, dtype: type | Dtype, *, nullable: bool = False) -> RequestFeature:  # noqa: N802
    """Declare a request feature, by Python type or by the name of its dtype.

    Examples
    --------
    >>> Feature("distance", float)
    RequestFeature(name='distance', dtype='float', nullable=False)
    """
    name_of: dict[object, Dtype] = {float: "float", int: "int", str: "str", bool: "bool"}
    known = name_of.get(dtype)
    return RequestFeature(name, known if known is not None else dtype, nullable)  # type: ignore[arg-type]
