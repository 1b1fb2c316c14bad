"""Checks of whole columns, by the rules that hold for one value."""

import numpy as np
import polars as pl

from headwater.spec.data.values import CONTROLS, LARGEST
from headwater.spec.errors import NonFiniteError, SchemaError

__all__ = ["check_column", "wrong_names"]

# Polars writes the pattern's characters as Rust does; it holds no halves of surrogate pairs.
_CONTROL = f"[{CONTROLS}]".replace(r"\u2028", r"\x{2028}").replace(r"\u2029", r"\x{2029}")


def wrong_names(column: pl.Series, most: int) -> pl.Series:
    """Return for each text whether it is no name, by :func:`headwater.spec.data.values.misfit_of_name`.

    Parameters
    ----------
    column
        Texts; null is no name.
    most
        How many characters one may have.
    """
    lengths = column.str.len_chars()
    outside = lengths.is_null() | ~lengths.is_between(1, most)
    return (outside | column.str.contains(_CONTROL)).fill_null(value=True)


def check_column(column: pl.Series, where: str, keys: pl.Series) -> None:
    """Check the values of a feature, which have its type.

    Parameters
    ----------
    column
        Named as the feature.
    where
        Of what: ends the text that tells what is wrong.
    keys
        Whose each value is, as many; one is named.

    Raises
    ------
    NonFiniteError
        If a number is NaN, infinite or beyond :data:`~headwater.spec.data.values.LARGEST`.
    SchemaError
        If a text holds NUL.
    """
    if column.dtype.is_float() and not _are_sound(column):
        wrong = (~column.is_between(-LARGEST, LARGEST)).fill_null(value=False)
        raise NonFiniteError(
            f"feature {column.name!r} of key {keys.filter(wrong)[0]!r} is {column.filter(wrong)[0]:g} "
            f"{where}; numbers are finite, and at most {LARGEST:g}",
            hint="write null for an unknown value, and declare the feature nullable",
        )
    if column.dtype == pl.String:
        wrong = column.str.contains("\0", literal=True).fill_null(value=False)
        if wrong.any():
            raise SchemaError(
                f"feature {column.name!r} of key {keys.filter(wrong)[0]!r} holds the control character "
                rf"'\x00' {where}",
                hint="take that out of the text",
            )


def _are_sound(column: pl.Series) -> bool:
    present = (column.drop_nulls() if column.null_count() else column).to_numpy()
    return bool(np.abs(present).max(initial=0.0) <= LARGEST)  # NaN is the largest, and compares False
