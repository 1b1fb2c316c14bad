"""Features by kind: request and batch features are served, streaming features are reserved."""

import math
import re
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from headwater.spec.data.carried import Function, carried
from headwater.spec.data.columns import RESERVED
from headwater.spec.data.values import is_sound, misfit_of_text
from headwater.spec.duration import Duration, duration
from headwater.spec.errors import DeclarationError

__all__ = [
    "BatchFeature",
    "Dtype",
    "Feature",
    "FeatureKind",
    "RequestFeature",
    "StreamingFeature",
    "as_recorded",
    "bare",
    "can_become",
    "dtype_of",
    "is_name",
    "limits",
    "python_type",
    "requested",
    "widens",
]

Dtype = Literal["float", "int", "str", "bool"]

_PYTHON: dict[str, type] = {"float": float, "int": int, "str": str, "bool": bool}
_NAME = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]{0,99}")  # two underscores begin Python's own


def python_type(dtype: Dtype) -> type:
    """Return the Python type that carries a value of `dtype`."""
    return _PYTHON[dtype]


def is_name(text: object) -> bool:
    """Return whether a text can name a feature: up to 100 letters, digits and underscores.

    It does not begin with two underscores: such names are Python's own.
    """
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


class _FeatureBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, repr_omit_defaults=True):
    name: str
    dtype: Dtype
    nullable: bool = False
    low: float | UnsetType = UNSET  # left out where not declared: recipes stay the bytes they were
    high: float | UnsetType = UNSET
    categories: tuple[str | int, ...] | UnsetType = UNSET
    longest: int | UnsetType = UNSET
    column: str | UnsetType = UNSET
    was: tuple[str, ...] | UnsetType = UNSET
    default: float | int | str | bool | UnsetType = UNSET
    fill: str | UnsetType = UNSET
    convert: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise DeclarationError(
                f"feature name {self.name!r} is not a name",
                hint="write letters, digits and underscores, such as 'hour_of_day'",
            )
        if self.name.lower() in RESERVED:
            raise DeclarationError(
                f"feature name {self.name!r} is that of a column of headwater's own tables",
                hint=f"call it another, such as '{self.name}_given'; so are called "
                f"{', '.join(sorted(RESERVED))}",
            )
        if self.dtype not in _PYTHON:
            raise DeclarationError(
                f"feature {self.name!r} has dtype {self.dtype!r}",
                hint="write one of 'float', 'int', 'str' and 'bool'",
            )
        self._check_range()
        if self.categories is not UNSET:
            self._check_categories(self.categories)
        if self.longest is not UNSET:
            self._check_longest(self.longest)
        if self.column is not UNSET and (not isinstance(self.column, str) or not self.column):
            raise DeclarationError(
                f"feature {self.name!r} has column={self.column!r}",
                hint="write the name of the column as the table has it: column='Price (EUR)'",
            )
        self._check_carried()

    @property
    def source_column(self) -> str:
        """The name of the column that holds the values in a table: its own, if none is declared."""
        return self.name if self.column is UNSET else self.column

    @property
    def is_ranged(self) -> bool:
        """Whether it declares which values of its type it may have."""
        declared = (self.low, self.high, self.categories, self.longest)
        return any(limit is not UNSET for limit in declared)

    def _check_range(self) -> None:
        kinds = {"float": (float, int), "int": (int,)}.get(self.dtype, ())
        for field, bound in (("low", self.low), ("high", self.high)):
            if bound is UNSET:
                continue
            fits = isinstance(bound, kinds) and not isinstance(bound, bool) and math.isfinite(bound)
            if not fits or abs(bound) >= 2**63:
                raise DeclarationError(
                    f"feature {self.name!r} of dtype {self.dtype!r} has {field}={bound!r}",
                    hint="write a finite number, a whole one for an int; text has categories=('a', 'b')",
                )
        if self.low is not UNSET and self.high is not UNSET and self.low > self.high:
            raise DeclarationError(
                f"feature {self.name!r} has low={self.low!r} above high={self.high!r}",
                hint="write the lower one as low",
            )

    def _check_carried(self) -> None:
        """Check what says where older examples have the feature from."""
        if self.was is not UNSET:
            names = self.was if isinstance(self.was, tuple) else ()
            if not names or not all(map(is_name, names)) or self.name in names:
                raise DeclarationError(
                    f"feature {self.name!r} has was={self.was!r}",
                    hint="write the name that it had before: was='price'",
                )
        if self.default is not UNSET:
            if not _is_value(self.default, self.dtype):
                raise DeclarationError(
                    f"feature {self.name!r} of dtype {self.dtype!r} has default={self.default!r}",
                    hint="write a value of its type, which examples have that were recorded without it",
                )
            if self.fill is not UNSET:
                raise DeclarationError(
                    f"feature {self.name!r} has both default and fill", hint="write one of them"
                )
        for field, name in (("fill", self.fill), ("convert", self.convert)):
            if name is not UNSET and not (isinstance(name, str) and name.split(":")[-1].isidentifier()):
                raise DeclarationError(
                    f"feature {self.name!r} has {field}={name!r}, which is no function with a name",
                    hint=f"write a function of the file in which the model is made: {field}=cleaned",
                )

    def _check_longest(self, longest: int) -> None:
        count = isinstance(longest, int) and not isinstance(longest, bool) and longest > 0
        if self.dtype != "str" or not count or self.categories is not UNSET:
            raise DeclarationError(
                f"feature {self.name!r} of dtype {self.dtype!r} has longest={longest!r}",
                hint="write a count of characters, for a feature of text without categories",
            )

    def _check_categories(self, categories: tuple[str | int, ...]) -> None:
        kind = {"str": str, "int": int}.get(self.dtype, ())
        fit = isinstance(categories, tuple) and all(
            isinstance(category, kind) and not isinstance(category, bool) for category in categories
        )
        if not fit or not categories or len(set(categories)) < len(categories):
            raise DeclarationError(
                f"feature {self.name!r} of dtype {self.dtype!r} has categories={categories!r}",
                hint="write some different values of a feature of text or int: categories=('a', 'b')",
            )
        for category in categories:
            why = misfit_of_text(category) if isinstance(category, str) else None
            if why is not None:
                raise DeclarationError(
                    f"feature {self.name!r} has the category {category!r}, which {why}",
                    hint="take that out of the text",
                )
        if self.low is not UNSET or self.high is not UNSET:
            raise DeclarationError(
                f"feature {self.name!r} has both categories and a range", hint="write one of them"
            )


class RequestFeature(_FeatureBase, frozen=True, forbid_unknown_fields=True, tag="request"):
    """A feature that arrives with the call.

    Parameters
    ----------
    name
        Name under which the model sees it; not that of a column of ours
        (:data:`headwater.spec.data.columns.RESERVED`).
    dtype
        ``"float"``, ``"int"`` (64 bit), ``"str"`` or ``"bool"``.
    nullable
        Whether None may be served.
    low, high
        The least and the greatest number that may be served, both included; as large as its type has
        them if not given.
    categories
        The values of text or int that may be served; all if not given.
    longest
        How many characters a text may have that is served; any number if not given.
    column
        The name of the column that holds its values in imports and tables, where that is no name of a
        feature; the feature's own if not given.
    was
        The names that it had before, the newest first: records of those have its values under them.
    default, fill
        What learning reads where an example was recorded without the feature: a value; or the name of a
        function of the model's file, which is given the example's recorded features, by name.
    convert
        The name of a function of the model's file, or ``"float"``, ``"int"``, ``"str"``, ``"bool"``,
        that makes a value of it from one that was recorded as another type. An int or bool needs none to
        become a float, nor a bool an int.
    """


class BatchFeature(_FeatureBase, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="batch"):
    """A feature that is looked up by entity key in a table that a flow materialises.

    Made by :meth:`headwater.spec.data.feature_table.FeatureTable.feature`.

    Parameters
    ----------
    name, dtype, nullable, low, high, categories, longest, column, was, default, fill, convert
        As in :class:`RequestFeature`; checked where the table is materialised.
    table
        Name of the table it is looked up in, one of the pipeline's.
    """

    table: str


class StreamingFeature(
    _FeatureBase, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="streaming"
):
    """A windowed aggregate of events. Reserved: no pipeline can use it yet.

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
        _FeatureBase.__post_init__(self)
        duration(self.window, "window")


FeatureKind = RequestFeature | BatchFeature | StreamingFeature


def Feature(  # noqa: N802, PLR0913 - reads as a class; the fields of one
    name: str,
    dtype: type | Dtype,
    *,
    nullable: bool = False,
    low: float | None = None,
    high: float | None = None,
    categories: Sequence[str | int] | None = None,
    longest: int | None = None,
    column: str | None = None,
    was: str | Sequence[str] | None = None,
    default: float | str | bool | None = None,
    fill: Function | None = None,
    convert: Function | None = None,
) -> RequestFeature:
    """Declare a request feature, by Python type or by the name of its dtype.

    Parameters
    ----------
    name, dtype, nullable, low, high, categories, longest, column
        As in :class:`RequestFeature`; what is outside is refused by the service, and not logged.
    was, default
        As there; one name, or several.
    fill, convert
        As there, but the functions themselves; they are called by their names in the model's file, whose
        text a version keeps.

    Examples
    --------
    >>> Feature("distance", float)
    RequestFeature(name='distance', dtype='float')
    >>> Feature("hour", int, low=0, high=23)
    RequestFeature(name='hour', dtype='int', low=0, high=23)
    >>> Feature("price", float, column="Price (EUR)")
    RequestFeature(name='price', dtype='float', column='Price (EUR)')
    >>> Feature("amount", float, was="price", convert=float)
    RequestFeature(name='amount', dtype='float', was=('price',), convert='float')
    """
    given = UNSET if column is None else column
    return RequestFeature(
        name,
        dtype_of(dtype),
        nullable,
        *limits(low, high, categories, longest),
        given,
        *carried(was, default, fill, convert),
    )


def _is_value(value: object, dtype: Dtype) -> bool:
    """Return whether a default can be one of a type's values."""
    if dtype == "float":
        return type(value) in {float, int} and is_sound(value)  # type: ignore[arg-type] # a number
    if dtype == "str":
        return isinstance(value, str) and misfit_of_text(value) is None
    return type(value) is _PYTHON[dtype] and -(2**63) <= value < 2**63  # type: ignore[operator] # int or bool


def widens(narrow: Dtype, wide: Dtype) -> bool:
    """Return whether each value of one type is one of another, too.

    >>> widens("int", "float"), widens("float", "int")
    (True, False)
    """
    return (narrow, wide) in {("int", "float"), ("bool", "int"), ("bool", "float")}


def requested(feature: FeatureKind) -> RequestFeature:
    """Return a feature of any kind as one that arrives with the call: as a record has it."""
    bare_ = bare(feature)
    names = RequestFeature.__struct_fields__
    return RequestFeature(**{name: getattr(bare_, name) for name in names})


def dtype_of(dtype: type | Dtype) -> Dtype:
    """Return the name of a dtype for a Python type; anything else unchanged, to be refused."""
    names: dict[object, Dtype] = {float: "float", int: "int", str: "str", bool: "bool"}
    return names.get(dtype, dtype)  # type: ignore[arg-type] # or refused


def limits(
    low: float | None, high: float | None, categories: Sequence[str | int] | None, longest: int | None
) -> tuple[float | UnsetType, float | UnsetType, tuple[str | int, ...] | UnsetType, int | UnsetType]:
    """Return the declared limits of a feature's values, with UNSET for None."""
    return (
        UNSET if low is None else low,
        UNSET if high is None else high,
        UNSET if categories is None else tuple(categories),
        UNSET if longest is None else longest,
    )


def bare(feature: FeatureKind) -> FeatureKind:
    """Return a feature without the range of its values and its column, as a recipe holds it.

    A range decides what is served and a column where tables have it, not what is learned from the log.

    >>> bare(Feature("hour", int, low=0, high=23))
    RequestFeature(name='hour', dtype='int')
    """
    return msgspec.structs.replace(
        feature, low=UNSET, high=UNSET, categories=UNSET, longest=UNSET, column=UNSET
    )


def can_become(recorded: FeatureKind, feature: FeatureKind) -> bool:
    """Return whether what was recorded as one feature can be read as another one.

    >>> can_become(Feature("n", str), Feature("n", int))
    False
    """
    same = recorded.dtype == feature.dtype or widens(recorded.dtype, feature.dtype)
    return same or feature.convert is not UNSET


def as_recorded(feature: FeatureKind) -> FeatureKind:
    """Return a bare feature without what says how older examples have it: a record goes by the rest.

    >>> as_recorded(Feature("hour", int, default=0))
    RequestFeature(name='hour', dtype='int')
    """
    return msgspec.structs.replace(bare(feature), was=UNSET, default=UNSET, fill=UNSET, convert=UNSET)
