"""Features as a struct type, checked as it is decoded, and the checks of its numbers and texts."""

from collections.abc import Mapping, Sequence
from math import hypot, isfinite
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import astuple

from headwater.spec.data.due import misfit_of_due
from headwater.spec.data.feature import FeatureKind, python_type
from headwater.spec.data.lossless import EXACT, fitted, is_rounded
from headwater.spec.data.values import LARGEST, is_sound, misfit_of_text
from headwater.spec.errors import NonFiniteError, SchemaError

__all__ = ["Fields", "type_of"]


class Fields:
    """The struct type of some features, in a fixed order, so that equal features are written alike.

    Parameters
    ----------
    features
        Which ones.
    ranged
        Whether values must be within what the features declare. What is logged need not be: it was
        served, and a range may have been declared later.
    due
        The feature that says when a truth is due, if one does.
    """

    def __init__(
        self, features: Sequence[FeatureKind], *, ranged: bool, due: str | UnsetType = UNSET
    ) -> None:
        kinds = {"float": 0, "int": 1}
        ordered = sorted(features, key=lambda f: (kinds.get(f.dtype, 2), f.name))
        self._dtypes = {f.name: f.dtype for f in ordered}
        floats = sum(f.dtype == "float" for f in ordered)
        self._floats = slice(0, floats)
        self._has_ints = any(f.dtype == "int" for f in ordered)
        self._ints = slice(floats, floats + sum(f.dtype == "int" for f in ordered))
        self._texts = tuple(place for place, f in enumerate(ordered) if f.dtype == "str")
        self._due = next((place for place in self._texts if ordered[place].name == due), None)
        self.type: type[msgspec.Struct] = msgspec.defstruct(
            "Features",
            [(f.name, type_of(f, ranged=ranged)) for f in ordered],
            forbid_unknown_fields=True,
            gc=False,
        )

    def convert(self, values: object) -> msgspec.Struct:
        """Convert values by name that stand for values of the declared types.

        Raises
        ------
        msgspec.ValidationError
            If one does not, or a name is missing or unknown.
        """
        if isinstance(values, Mapping):
            kinds = self._dtypes
            values = {name: fitted(v, kinds[name]) if name in kinds else v for name, v in values.items()}
        return msgspec.convert(values, self.type)

    def check_exact(self, values: Mapping[str, object]) -> None:
        """Check, where :meth:`fit` says so, that no whole number was rounded.

        Raises
        ------
        SchemaError
            If one was; the text names the feature.
        """
        for name, dtype in self._dtypes.items():
            if is_rounded(values.get(name), dtype):
                raise SchemaError(
                    f"feature {name!r} is the whole number {values[name]}, which a float does not hold",
                    hint="declare it int or text, or send the float that it is: 1.7e18",
                )

    def fit(self, features: msgspec.Struct) -> bool:
        """Check the values of features that have the right types; the text names the feature.

        Returns
        -------
        bool
            Whether a number is so large that it may have been rounded from a whole one.

        Raises
        ------
        SchemaError
            If an integer does not fit 64 bits, a text holds what no store does, or the text that says
            when a truth is due is no time.
        NonFiniteError
            If a number is NaN, infinite or beyond :data:`~headwater.spec.data.values.LARGEST`.
        """
        values = astuple(features)
        # What is within together is within each, and NaN never is: one look for nearly every prediction.
        size = hypot(*filter(None, values[self._floats]))
        if not size <= LARGEST:
            self._check_floats(values)
        if self._has_ints:
            self._check_ints(values)
        for place in self._texts:
            text = values[place]
            if text is None or (text.isascii() and "\0" not in text):
                continue  # nearly every one
            why = misfit_of_text(text)
            if why is not None:
                raise SchemaError(
                    f"feature {self._name(place)!r} {why}", hint="take that out of the text"
                )
        if self._due is not None:
            self._check_due(self._due, values[self._due])
        return size >= EXACT

    def _check_due(self, place: int, value: str | None) -> None:
        why = misfit_of_due(value)
        if why is not None:
            raise SchemaError(
                f"feature {self._name(place)!r}, by which the label is due, {why}: {value!r:.60}",
                hint="send a time such as 2026-01-01T00:00:00Z",
            )

    def _check_ints(self, values: tuple[Any, ...]) -> None:
        for place, value in enumerate(values[self._ints], self._ints.start):
            if value is not None and not -(2**63) <= value < 2**63:
                raise SchemaError(
                    f"feature {self._name(place)!r} does not fit 64 bits",
                    hint="send it as text, or declare a float",
                )

    def _check_floats(self, values: tuple[Any, ...]) -> None:
        for place, value in enumerate(values[self._floats], self._floats.start):
            if value is None or is_sound(value):
                continue
            if isfinite(value):
                raise NonFiniteError(
                    f"feature {self._name(place)!r} is {value:g}, beyond {LARGEST:g}, the largest "
                    "number that is learned",
                    hint="send it in another unit, or its logarithm",
                )
            raise NonFiniteError(
                f"feature {self._name(place)!r} is {value}",
                hint="send None for an unknown value, and declare the feature nullable",
            )

    def _name(self, place: int) -> str:
        return self.type.__struct_fields__[place]


def type_of(feature: FeatureKind, *, ranged: bool) -> Any:
    """Return the type that carries a feature's values, to decode into.

    >>> from headwater.spec.data.feature import Feature
    >>> type_of(Feature("colour", str, categories=("red", "green")), ranged=True)
    typing.Literal['red', 'green']
    """
    kind: Any = python_type(feature.dtype)
    if ranged and feature.categories is not UNSET:
        kind = Literal[feature.categories]
    elif ranged and feature.longest is not UNSET:
        kind = Annotated[kind, Meta(max_length=feature.longest)]
    elif ranged and feature.is_ranged:
        low = None if feature.low is UNSET else feature.low
        high = None if feature.high is UNSET else feature.high
        kind = Annotated[kind, Meta(ge=low, le=high)]
    return kind | None if feature.nullable else kind
