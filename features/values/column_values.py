"""Fitting of a table's column to its declared type, without loss.

``docs/values.md`` has the table of what stands for a value, by declared type. All else is a misfit,
which the caller refuses by name; no value is cast, guessed or dropped. Values that come one by one are
fitted by the same rule (:mod:`headwater.spec.data.lossless`).

Times are kept to the microsecond; what is finer is cut off. Missing in pandas (NaN, None, NaT, NA) is
null. NaN elsewhere stays NaN, for the caller to refuse. In text an empty field is null; an empty field
in quotes is empty text for str and id, and null for all others. White space is part of a value.
"""

from typing import Literal, NamedTuple

import pandas as pd
import polars as pl

from headwater.features.values.spelling import ISO, Spelling
from headwater.spec.data.feature import Dtype
from headwater.spec.data.lossless import EXACT
from headwater.spec.errors import SchemaError

__all__ = ["Fitted", "Kind", "fit", "from_pandas"]

Kind = Dtype | Literal["id", "time"]
"""What a column holds: a declared type, ids, or times."""

_DTYPES: dict[Kind, pl.DataType] = {
    "float": pl.Float64(),
    "int": pl.Int64(),
    "bool": pl.Boolean(),
    "str": pl.String(),
    "id": pl.String(),
    "time": pl.Datetime("us", "UTC"),
}
_REFUSALS = (ValueError, TypeError, OverflowError, NotImplementedError, pl.exceptions.PolarsError)
_TEXTS = (pl.String, pl.Categorical, pl.Enum)
_FLOAT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_INT = r"^[+-]?[0-9]+$"
_WHOLE = r"^([+-]?[0-9]+)(?:\.0*)?$"
_DAY_AND_MINUTE = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}"
_FULL_TIME = _DAY_AND_MINUTE + r":[0-5][0-9](\.[0-9]+)?([Zz]|[+-][0-9]{2}:?[0-9]{2})$"
_TIME = _DAY_AND_MINUTE + r"(:[0-5][0-9](\.[0-9]+)?)?([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)$"
_LOCAL_TIME = _DAY_AND_MINUTE + r"(:[0-5][0-9](\.[0-9]+)?)?$"
_NO_SPACE_AROUND = r"^\S(.*\S)?$"
_NO_SECONDS = "^(.{16})([Zz+-])"
_HOURS = "([+-][0-9]{2})$"
_FIRST_YEAR = 1000  # of a form that is declared
_FIRST_US = -62_135_596_800_000_000  # the years 1 to 9999, which Python's times have
_LAST_US = 253_402_300_799_999_999


class Fitted(NamedTuple):
    """A column of the declared type.

    Parameters
    ----------
    values
        Float64, Int64, Boolean, String or Datetime in microseconds, UTC. Null where null was, and where
        a value is a misfit.
    misfits
        How many values are misfits.
    first_misfit
        The row of the first one, from 0; -1 if there is none.
    """

    values: pl.Series
    misfits: int
    first_misfit: int


def fit(column: pl.Series, kind: Kind, *, text: bool = False, spelling: Spelling = ISO) -> Fitted:
    """Fit a column to the declared type. Pure.

    Parameters
    ----------
    column
        As the table has it.
    kind
        What is declared.
    text
        Whether the table is text; `column` is then of strings.
    spelling
        How booleans are spelled where the table is text; and, in any table, the form of times that are
        text, and the zone of those that have none.

    Examples
    --------
    >>> fit(pl.Series([1.0, 3.7, None]), "int").values.to_list()
    [1, None, None]
    >>> fit(pl.Series([1.0, 3.7, None]), "int").first_misfit
    1
    >>> fit(pl.Series(["02139", ""]), "str", text=True).values.to_list()
    ['02139', '']
    """
    if text and kind not in ("str", "id"):
        column = column.set(column == "", None)
    values = _fitting(column, kind, spelling, text=text).alias(column.name)
    if values.null_count() == column.null_count():
        return Fitted(values, 0, -1)
    misfits = (values.is_null() & column.is_not_null()).arg_true()
    return Fitted(values, len(misfits), int(misfits[0]))


def from_pandas(column: pd.Series) -> pl.Series:
    """Convert a column of pandas; missing values become null.

    Raises
    ------
    SchemaError
        If it holds values of several types, or of one that no table has.
    """
    try:
        if column.dtype == object and pd.api.types.infer_dtype(column) == "datetime":
            column = _all_aware(column)
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            column = column.dt.tz_convert("UTC")  # Polars has no zones such as +05:30
        return pl.from_pandas(column)
    except _REFUSALS as error:
        first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise SchemaError(
            f"column {column.name!r} ({column.dtype}) is not of one type: {first}",
            hint="give it one type in pandas: column.astype(...)",
        ) from error


def _all_aware(column: pd.Series) -> pd.Series:
    """Convert times of several zones to UTC; refuse a mix of times with and without a zone."""
    zoned = column.dropna().map(lambda moment: moment.tzinfo is not None)
    if zoned.nunique() > 1:
        raise ValueError(f"row {int(zoned.to_numpy().argmin())} of those that are there has no zone")
    return pd.to_datetime(column, utc=True) if zoned.all() else column


def _fitting(column: pl.Series, kind: Kind, spelling: Spelling, *, text: bool) -> pl.Series:
    """Return the values of `kind`, and null for the rest."""
    dtype = column.dtype
    if column.null_count() == len(column):
        return pl.repeat(None, len(column), dtype=_DTYPES[kind], eager=True)
    if kind in ("str", "id"):
        fits = dtype in _TEXTS or (kind == "id" and dtype.is_integer())
        return column.cast(pl.String) if fits else _none(column, kind)
    if kind == "time":
        return _times(column, spelling)
    if text:
        return _of_text(column, kind, spelling)
    if isinstance(dtype, pl.Decimal):
        return _of_text(column.cast(pl.String).str.replace(_WHOLE, "${1}"), kind, ISO)
    if dtype == pl.Boolean:
        return column if kind == "bool" else _none(column, kind)
    return _of_numbers(column, kind) if dtype.is_numeric() else _none(column, kind)


def _none(column: pl.Series, kind: Kind) -> pl.Series:
    return pl.repeat(None, len(column), dtype=_DTYPES[kind], eager=True)


def _of_numbers(column: pl.Series, kind: Kind) -> pl.Series:
    """Fit integers and floats."""
    if kind == "bool":
        return _where((column == 1) | (column == 0), column == 1)
    if column.dtype.is_integer():
        whole = column.cast(pl.Int64, strict=False)
        if kind == "int":
            return whole
        return _where(whole.is_between(-EXACT, EXACT), whole.cast(pl.Float64))
    floats = column.cast(pl.Float64)
    if kind == "float":
        return floats
    whole = floats.cast(pl.Int64, strict=False)
    below = whole.is_between(-EXACT, EXACT, closed="none")
    return _where((whole == floats) & below, whole)


def _of_text(column: pl.Series, kind: Kind, spelling: Spelling) -> pl.Series:
    """Fit numbers and booleans as people write them."""
    if kind == "bool":
        words = spelling.booleans
        told = column.str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Boolean)
        if words.get("1") is not True or words.get("0") is not False or not told.has_nulls():
            return told
        numbers = _where(column.str.contains(_FLOAT), column.cast(pl.Float64, strict=False))
        return told.zip_with(told.is_not_null(), _of_numbers(numbers, "bool"))
    is_int = column.str.contains(_INT)
    whole = _where(is_int, column.cast(pl.Int64, strict=False)) if is_int.any() else None
    if kind == "int" and whole is not None and is_int.all():
        return whole
    numbers = _where(column.str.contains(_FLOAT), column.cast(pl.Float64, strict=False))
    fitted = numbers if kind == "float" else _of_numbers(numbers, kind)
    if whole is None:
        return fitted
    return (_of_numbers(whole, "float") if kind == "float" else whole).zip_with(is_int, fitted)


def _times(column: pl.Series, spelling: Spelling) -> pl.Series:
    dtype = column.dtype
    if dtype == pl.String:
        return _times_of_text(column, spelling)
    if not isinstance(dtype, pl.Datetime):
        return _none(column, "time")
    if dtype.time_unit != "ns":  # those of nanoseconds are all of the years 1677 to 2262
        a_unit_us = 1 if dtype.time_unit == "us" else 1_000
        since = column.to_physical()
        column = _where(since.is_between(_FIRST_US // a_unit_us, _LAST_US // a_unit_us), column)
    if dtype.time_zone is None:
        return _in_zone(column.cast(pl.Datetime("us")), spelling.zone)
    return column.dt.convert_time_zone("UTC").cast(_DTYPES["time"])


def _in_zone(column: pl.Series, zone: str | None) -> pl.Series:
    """Return the instants of times that say no zone; null where the zone has the time twice or never."""
    if zone is None:
        return _none(column, "time")
    placed = column.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    return placed.dt.convert_time_zone("UTC")


def _times_of_text(column: pl.Series, spelling: Spelling) -> pl.Series:
    if spelling.time_format is not None:
        return _times_in_form(column, spelling.read_form, spelling.zone)
    if spelling.zone is None:
        return _iso_times(column)
    local = column.str.contains(_LOCAL_TIME).fill_null(value=False)
    seconds = column.str.replace("[Tt]", " ").str.replace("^(.{16})$", "${1}:00")
    naive = seconds.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    return _in_zone(naive, spelling.zone).zip_with(local, _iso_times(column))


def _iso_times(column: pl.Series) -> pl.Series:
    fits = column.str.contains(_TIME)
    if not column.str.contains(_FULL_TIME).all():
        column = column.str.replace(_NO_SECONDS, "${1}:00${2}").str.replace(_HOURS, "${1}:00")
    parsed = column.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    return _within_years(_where(fits, parsed))


def _times_in_form(column: pl.Series, form: str, zone: str | None) -> pl.Series:
    parsed = column.str.to_datetime(form, time_unit="us", strict=False)
    # Chrono takes 24 for %Y: a year of two digits would be one of the first century.
    parsed = _where(column.str.contains(_NO_SPACE_AROUND) & (parsed.dt.year() >= _FIRST_YEAR), parsed)
    return _within_years(parsed if zone is None else _in_zone(parsed, zone))


def _within_years(times: pl.Series) -> pl.Series:
    return _where(times.to_physical().is_between(_FIRST_US, _LAST_US), times)


def _where(fits: pl.Series, values: pl.Series) -> pl.Series:
    """Return values where they fit, and null elsewhere."""
    nothing = pl.repeat(None, len(values), dtype=values.dtype, eager=True)
    return values.zip_with(fits.fill_null(value=False), nothing)
