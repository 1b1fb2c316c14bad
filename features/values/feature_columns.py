"""Columns of the features of stored records, each decoded by its own declaration."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import polars as pl
from msgspec.structs import astuple

from headwater.features.values.projection import DTYPES, stored_columns
from headwater.spec.data.feature import Dtype, python_type
from headwater.spec.declaration import Declaration

__all__ = ["DecodedField", "FeatureColumns", "OwnColumns", "decode"]

_PLACE = "__place"  # no feature begins with two underscores

DecodedField = tuple[str, Any] | tuple[str, Any, Any]
"""A field's name, its type, and its default."""


class OwnColumns:
    """What decodes the features of one declaration's records, and the columns they are stored in."""

    def __init__(self, declaration: Declaration, columns: Mapping[tuple[str, Dtype], str]) -> None:
        features = declaration.features
        self.columns = {columns[f.name, f.dtype]: DTYPES[f.dtype] for f in features}
        fields = [(f.name, python_type(f.dtype) | None, None) for f in features]
        self.field: DecodedField = ("features", msgspec.defstruct("Features", fields))

    def frame(self, served: Sequence[msgspec.Struct]) -> pl.DataFrame:
        """Turn structs of features, of which there may be none, into columns."""
        by_column = zip(*map(astuple, served), strict=True) if served else [()] * len(self.columns)
        return pl.DataFrame(
            {
                name: pl.Series(column, dtype=dtype, strict=False)
                for (name, dtype), column in zip(self.columns.items(), by_column, strict=True)
            }
        )


class FeatureColumns:
    """The columns in which the features of a pipeline's records are stored, of all declarations.

    Parameters
    ----------
    load
        Gives what the records were recorded under, by number, at least one: called again when a record
        bears a number that is not known yet.

    Attributes
    ----------
    declarations, types
        What was given last, and the type of each column.
    """

    def __init__(self, load: Callable[[], Mapping[int, Declaration]]) -> None:
        self._load = load
        self._refresh()

    def know(self, numbers: Collection[int | None]) -> bool:
        """Load the declarations of some numbers if they are not known; return whether they were."""
        known = all(number is None or number in self.declarations for number in numbers)
        if not known:
            self._refresh()
        return known

    def _refresh(self) -> None:
        self.declarations = self._load()
        columns = stored_columns(self.declarations)
        self.types = {column: DTYPES[dtype] for (_, dtype), column in columns.items()}
        self._first = min(self.declarations)
        self._own = {number: OwnColumns(one, columns) for number, one in self.declarations.items()}

    def columns_of(self, numbers: Iterable[int]) -> list[str]:
        """Return the columns of features that records of some declarations have, in a fixed order."""
        own = {column for number in numbers for column in self._own[number].columns}
        return [column for column in self.types if column in own]

    def numbers(self, stored: Sequence[int | None]) -> pl.Series:
        """Return the numbers of declarations, which are known then; old rows are of the first."""
        self.know(set(stored))
        return pl.Series(stored, dtype=pl.Int32).fill_null(self._first)

    def own_of(self, numbers: pl.Series) -> "OwnColumns | None":
        """Return what decodes records of some numbers; None if they are of several declarations."""
        present = numbers.unique().to_list()
        return self._own[present[0] if present else self._first] if len(present) < 2 else None

    def of_several(self, payloads: Sequence[bytes], numbers: pl.Series) -> pl.Series:
        """Make the features of records of several declarations, each decoded by its own."""
        parts = []
        for number in numbers.unique():
            places, own = (numbers == number).arg_true(), self._own[number]
            records = decode([payloads[place] for place in places], (own.field,))
            parts.append(own.frame([one.features for one in records]).with_columns(**{_PLACE: places}))
        return self.struct(pl.concat(parts, how="diagonal").sort(_PLACE).drop(_PLACE))

    def struct(self, features: pl.DataFrame) -> pl.Series:
        """Return features as a struct of the columns of all declarations."""
        return features.select(
            pl.col(name) if name in features.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in self.types.items()
        ).to_struct("features")


@lru_cache(maxsize=64)
def _decoder(fields: tuple[DecodedField, ...]) -> msgspec.json.Decoder[list[Any]]:
    """Read only the fields that are wanted; the rest is skipped."""
    return msgspec.json.Decoder(list[msgspec.defstruct("Stored", list(fields), gc=False, kw_only=True)])  # type: ignore[misc] # made at run time


def decode(payloads: Sequence[bytes], fields: tuple[DecodedField, ...]) -> list[Any]:
    """Decode records as objects with some of their fields; the rest is skipped."""
    return _decoder(fields).decode(b"[" + b",".join(payloads) + b"]")
