"""Features as a struct type: what is checked as it is decoded, and the checks of numbers beside it."""

from collections.abc import Sequence
from math import isfinite
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta
from msgspec.structs import astuple

from headwater.spec.errors import NonFiniteError, SchemaError
from headwater.spec.feature import FeatureKind, python_type

__all__ = ["Fields", "type_of"]


class Fields:
    """The struct type of some features, in an order of its own, so that equal ones are written alike.

    Parameters
    ----------
    features
        Which ones.
    ranged
        Whether values must be within what the features declare. What is logged need not be: it was
        served, and a range may have been declared later.
    """

    def __init__(self, features: Sequence[FeatureKind], *, ranged: bool) -> None:
        kinds = {"float": 0, "int": 1}
        ordered = sorted(features, key=lambda f: (kinds.get(f.dtype, 2), f.name))
        floats = sum(f.dtype == "float" for f in ordered)
        self._floats = slice(0, floats)
        self._has_ints = any(f.dtype == "int" for f in ordered)
        self._ints = slice(floats, floats + sum(f.dtype == "int" for f in ordered))
        self.type: type[msgspec.Struct] = msgspec.defstruct(
            "Features",
            [(f.name, type_of(f, ranged=ranged)) for f in ordered],
            forbid_unknown_fields=True,
            gc=False,
        )

    def fit(self, prediction_id: str, features: msgspec.Struct) -> None:
        """Check the numbers of features that have the right types.

        Raises
        ------
        SchemaError
            If an integer does not fit 64 bits.
        NonFiniteError
            If a number is NaN or infinite.
        """
        values = astuple(features)
        if self._has_ints:
            self._check_ints(prediction_id, values)
        # NaN and infinity survive a sum: one look at it does for nearly every prediction.
        if not isfinite(sum(filter(None, values[self._floats]))):
            self._check_floats(prediction_id, values)

    def _check_ints(self, prediction_id: str, values: tuple[Any, ...]) -> None:
        for value in values[self._ints]:
            if value is not None and not -(2**63) <= value < 2**63:
                raise SchemaError(
                    f"prediction {prediction_id!r}: feature {self._name(value, values)!r} "
                    "does not fit 64 bits",
                    hint="send it as text, or declare a float",
                )

    def _check_floats(self, prediction_id: str, values: tuple[Any, ...]) -> None:
        for value in filter(None, values[self._floats]):
            if not isfinite(value):
                raise NonFiniteError(
                    f"prediction {prediction_id!r}: feature {self._name(value, values)!r} is {value}",
                    hint="send None for what is not known, and declare the feature nullable",
                )

    def _name(self, value: object, values: tuple[object, ...]) -> str:
        where = next(place for place, one in enumerate(values) if one is value)
        return self.type.__struct_fields__[where]


def type_of(feature: FeatureKind, *, ranged: bool) -> Any:
    """Give the type that carries a feature's values, to decode into.

    >>> from headwater.spec.feature import Feature
    >>> type_of(Feature("colour", str, categories=("red", "green")), ranged=True)
    typing.Literal['red', 'green']
    """
    kind: Any = python_type(feature.dtype)
    if ranged and feature.categories is not UNSET:
        kind = Literal[feature.categories]
    elif ranged and feature.is_ranged:
        low = None if feature.low is UNSET else feature.low
        high = None if feature.high is UNSET else feature.high
        kind = Annotated[kind, Meta(ge=low, le=high)]
    return kind | None if feature.nullable else kind
