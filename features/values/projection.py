"""Features of one declaration out of what was recorded under several: what learning reads.

A record stays what it was. Its features are stored in columns of their names; where a name was
declared again with another type, in a column of its own, ``k@2``. A projection names the columns from
which each feature of a declaration comes: its own, that of the name it had before (``was``), one of a
narrower type, or one that a function of the user's converts; where a record has none, its default.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import polars as pl
from msgspec import UNSET

from headwater.spec.data.feature import Dtype, FeatureKind, can_become
from headwater.spec.data.values import is_sound, misfit_of_text
from headwater.spec.declaration import Declaration
from headwater.spec.errors import ChangedError, DeclarationError, SchemaError, spans_of
from headwater.spec.feature_differences import recorded_as

__all__ = ["DTYPES", "Projection", "function_beside", "stored_columns"]

DTYPES: dict[Dtype, type[pl.DataType]] = {
    "float": pl.Float64,
    "int": pl.Int64,
    "str": pl.String,
    "bool": pl.Boolean,
}
"""The column type of each dtype."""

Function = Callable[[Any], object]
_EXACT = 2**53


def stored_columns(declarations: Mapping[int, Declaration]) -> dict[tuple[str, Dtype], str]:
    """Return the column in which a feature of each name and type is stored.

    The first type of a name has the column of that name; each later one ``NAME@2`` and so on, in the
    order of the declarations' numbers, so that a column never becomes another's. Delta Lake does not
    tell upper from lower case: names that differ only there are told apart in the same way.
    """
    names: dict[tuple[str, Dtype], str] = {}
    counts: dict[str, int] = {}
    for _, declaration in sorted(declarations.items()):
        for feature in declaration.features:
            if (feature.name, feature.dtype) not in names:
                place = counts[feature.name.lower()] = counts.get(feature.name.lower(), 0) + 1
                column = feature.name if place == 1 else f"{feature.name}@{place}"
                names[feature.name, feature.dtype] = column
    return names


def function_beside(model: Callable[[], object], name: str) -> Function:
    """Return a function of the file in which a model is made, or one of Python's own types, by name.

    Raises
    ------
    DeclarationError
        If there is none of that name.
    """
    own: dict[str, Function] = {"float": float, "int": int, "str": str, "bool": bool}
    if name in own:
        return own[name]
    module, _, function = name.partition(":")
    found = getattr(model, "__globals__", {}).get(function)
    if module != getattr(model, "__module__", "") or not callable(found):
        raise DeclarationError(
            f"{name!r} is no function of {getattr(model, '__module__', 'the file')!r}, where the model "
            "is made",
            hint="put it into that file: a version keeps its text, and can be made again then",
        )
    return cast("Function", found)


class _Source(NamedTuple):
    """Where a feature comes from: a column, or None for its default, and whether it is converted.

    A fill is of one declaration, whose number is given.
    """

    column: str | None
    converted: bool = False
    filled: int | None = None


class Projection:
    """The projection of recorded features to those of a declaration.

    Parameters
    ----------
    features
        Those that are wanted, in order.
    declarations
        What records were recorded under, by number.
    functions
        Gives the function that a feature names: ``convert=`` or ``fill=``.
    of
        What the places count, for errors: ``"examples"`` or ``"positions"``.
    """

    def __init__(
        self,
        features: Sequence[FeatureKind],
        declarations: Mapping[int, Declaration],
        functions: Callable[[str], Function],
        of: str = "examples",
    ) -> None:
        self._of = of
        self._features = features
        self._declarations = declarations
        self._functions = functions
        self._columns = stored_columns(declarations)

    def apply(self, recorded: pl.DataFrame, numbers: pl.Series, places: pl.Series) -> pl.DataFrame:
        """Return the wanted features of some records.

        Parameters
        ----------
        recorded
            Their features in the columns of :func:`stored_columns`.
        numbers
            Of their declarations.
        places
            Their offsets or positions, by which an error names them.

        Raises
        ------
        ChangedError
            If a feature was recorded as another type, and nothing says how to convert it.
        SchemaError
            If a value cannot be made; it names the places.
        """
        present = numbers.unique().to_list()
        made = {
            feature.name: self._feature(feature, recorded, numbers, places, present)
            for feature in self._features
        }
        return pl.DataFrame(made, schema={name: column.dtype for name, column in made.items()})

    def _feature(
        self,
        feature: FeatureKind,
        recorded: pl.DataFrame,
        numbers: pl.Series,
        places: pl.Series,
        present: Sequence[int],
    ) -> pl.Series:
        sources: dict[_Source, list[int]] = {}
        for number in present:
            sources.setdefault(self._source(feature, number), []).append(number)
        if not sources:
            return pl.Series(feature.name, [], dtype=DTYPES[feature.dtype])
        if len(sources) == 1:  # nearly always
            (source,) = sources
            return self._values(feature, source, recorded, places)
        parts = []
        for source, of in sources.items():
            mine = numbers.is_in(of)
            values = self._values(feature, source, recorded.filter(mine), places.filter(mine))
            parts.append(pl.DataFrame({"at": mine.arg_true(), "value": values}))
        return pl.concat(parts).sort("at")["value"].alias(feature.name)

    def _source(self, feature: FeatureKind, number: int) -> _Source:
        """Find where records of a declaration have a feature."""
        known = recorded_as(feature, self._declarations[number].features)
        if known is None:
            return _Source(None, filled=None if feature.fill is UNSET else number)
        column = self._columns[known.name, known.dtype]
        if not can_become(known, feature):
            raise ChangedError(
                f"feature {feature.name!r} is {feature.dtype}, and was recorded as {known.dtype}",
                hint=f"say how: convert={feature.dtype}, or a function of the model's file",
            )
        other = known.dtype != feature.dtype
        return _Source(column, other and feature.convert is not UNSET)

    def _values(
        self, feature: FeatureKind, source: _Source, recorded: pl.DataFrame, places: pl.Series
    ) -> pl.Series:
        dtype = DTYPES[feature.dtype]
        if source.filled is not None:
            return self._filled(feature, source.filled, recorded, places)
        if source.column is None:
            default = None if feature.default is UNSET else feature.default
            return pl.repeat(default, len(places), dtype=dtype, eager=True).alias(feature.name)
        values = recorded[source.column].alias(feature.name)
        if source.converted:
            return self._converted(feature, values, places)
        if values.dtype == pl.Int64 and dtype == pl.Float64:
            wrong = places.filter((values.abs() > _EXACT).fill_null(value=False))
            if len(wrong):
                raise self._refused(
                    feature, "a float", wrong.to_list(), "has whole numbers beyond 2**53 there"
                )
        return values.cast(dtype)

    def _filled(
        self, feature: FeatureKind, number: int, recorded: pl.DataFrame, places: pl.Series
    ) -> pl.Series:
        """Make a value of each example's own features, by the names that they were recorded under."""
        own = {
            one.name: self._columns[one.name, one.dtype] for one in self._declarations[number].features
        }
        rows = recorded.select(pl.col(column).alias(name) for name, column in own.items())
        fill, given = self._functions(feature.fill or ""), list[object]()
        for place, row in zip(places, rows.iter_rows(named=True), strict=True):
            try:
                given.append(fill(dict(row)))
                why = "" if _fits(given[-1], feature) else f"makes {given[-1]!r}"
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a function of the user's
                why = f"fails: {type(error).__name__}: {error}"
            if why:
                raise self._refused(feature, f"fill={feature.fill}", [place], why)
        return pl.Series(feature.name, given, dtype=DTYPES[feature.dtype])

    def _refused(self, feature: FeatureKind, by: str, places: Sequence[int], why: str) -> SchemaError:
        out = f"headwater quarantine PIPELINE {places[0]}:{places[0] + 1}"
        out = f", or leave the examples out: {out}" if self._of == "examples" else ""
        return SchemaError(
            f"feature {feature.name!r} of the {self._of} {spans_of(places)} cannot be made by {by}: it "
            f"{why}",
            hint=f"mend what the feature declares{out}",
        )

    def _converted(self, feature: FeatureKind, values: pl.Series, places: pl.Series) -> pl.Series:
        """Convert each distinct value once."""
        named = str(feature.convert)
        convert, made, refused, why = self._functions(named), dict[object, object](), list[object](), ""
        for value in values.unique().drop_nulls().to_list():
            try:
                made[value] = convert(value)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a function of the user's
                refused.append(value)
                why = why or f"fails at {value!r}: {type(error).__name__}: {error}"
                continue
            if not _fits(made[value], feature):
                refused.append(value)
                why = why or f"makes {made[value]!r} of {value!r}"
        if refused:
            wrong = places.filter(values.is_in(pl.Series(refused, dtype=values.dtype).implode()))
            raise self._refused(feature, f"convert={named}", wrong.to_list(), why)
        if not made:
            return values.cast(DTYPES[feature.dtype])
        new = pl.Series(list(made.values()), dtype=DTYPES[feature.dtype])
        old = pl.Series(list(made), dtype=values.dtype)
        return values.replace_strict(old, new, default=None, return_dtype=DTYPES[feature.dtype])


def _fits(value: object, feature: FeatureKind) -> bool:
    """Return whether a value is one of a feature's type; null if it may be null."""
    if value is None:
        return feature.nullable
    match feature.dtype:
        case "float":
            return type(value) in {float, int} and is_sound(value)  # type: ignore[arg-type] # a number
        case "int":
            return type(value) is int and -(2**63) <= value < 2**63
        case "str":
            return type(value) is str and misfit_of_text(value) is None
    return type(value) is bool
