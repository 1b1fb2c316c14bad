"""Columns fit their declared type, in every representation that a table may have."""

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.features.values.column_values import Fitted, Kind, fit, from_pandas
from headwater.spec.errors import SchemaError

KINDS: tuple[Kind, ...] = ("float", "int", "bool", "str", "id", "time")
AT = datetime(2024, 1, 1, 12, tzinfo=UTC)
YEAR_1700, YEAR_2200 = (AT.replace(year=year, tzinfo=None) for year in (1700, 2200))
BIG = 2**53
INTEGERS = {dtype for dtype in pl.datatypes.group.INTEGER_DTYPES if isinstance(dtype, type)}

# By type: values, and what they are for each kind that takes any of them; None for a misfit.
TYPED: dict[Any, tuple[list[Any], dict[Kind, list[Any]]]] = {
    pl.Float16: ([1.5, 2.0], {"float": [1.5, 2.0], "int": [None, 2]}),
    pl.Float32: (
        [0.1, 3.0, 1.0],
        {"float": [float(np.float32(0.1)), 3.0, 1.0], "int": [None, 3, 1], "bool": [None, None, True]},
    ),
    pl.Float64: (
        [3.7, -0.0, 1e300, BIG, BIG * 2.0],
        {"float": [3.7, -0.0, 1e300, BIG, BIG * 2.0], "int": [None, 0, None, None, None]},
    ),
    pl.Int64: (
        [1, 0, 2, -BIG, -BIG - 1],
        {
            "float": [1.0, 0.0, 2.0, -BIG, None],
            "int": [1, 0, 2, -BIG, -BIG - 1],
            "bool": [True, False, None, None, None],
            "id": ["1", "0", "2", str(-BIG), str(-BIG - 1)],
        },
    ),
    pl.UInt64: (
        [1, BIG + 1, 2**63],
        {"float": [1.0, None, None], "int": [1, BIG + 1, None], "bool": [True, None, None]},
    ),
    pl.Int128: ([7, -(2**63), 2**63], {"float": [7.0, None, None], "int": [7, -(2**63), None]}),
    pl.UInt128: ([7, 2**100], {"float": [7.0, None], "int": [7, None], "id": ["7", str(2**100)]}),
    pl.Boolean: ([True, False], {"bool": [True, False]}),
    pl.String: (
        ["02139", "true", "1.5", "2024-01-01T12:00:00Z"],
        {
            "str": ["02139", "true", "1.5", "2024-01-01T12:00:00Z"],
            "id": ["02139", "true", "1.5", "2024-01-01T12:00:00Z"],
            "time": [None, None, None, AT],
        },
    ),
    pl.Categorical: (["a", "b"], {"str": ["a", "b"], "id": ["a", "b"]}),
    pl.Enum(["a", "b"]): (["b", "a"], {"str": ["b", "a"], "id": ["b", "a"]}),
    pl.Decimal(10, 2): (
        [Decimal("0.10"), Decimal("3.00"), Decimal("-1.00"), Decimal("1.00")],
        {"float": [0.1, 3.0, -1.0, 1.0], "int": [None, 3, -1, 1], "bool": [None, None, None, True]},
    ),
    pl.Datetime("us", "UTC"): ([AT], {"time": [AT]}),
    pl.Datetime("ms", "Europe/Berlin"): ([AT], {"time": [AT]}),
    pl.Datetime("ns", "UTC"): (
        [AT + timedelta(microseconds=1)],
        {"time": [AT + timedelta(microseconds=1)]},
    ),
    pl.Datetime("us"): ([AT.replace(tzinfo=None)], {}),
    pl.Date: ([date(2024, 1, 1)], {}),
    pl.Time: ([time(1)], {}),
    pl.Duration: ([timedelta(1)], {}),
    pl.Binary: ([b"1"], {}),
    pl.List(pl.Int64): ([[1]], {}),
    pl.Array(pl.Int64, 1): ([[1]], {}),
    pl.Struct({"a": pl.Int64}): ([{"a": 1}], {}),
    pl.Object: ([object()], {}),
}
OTHERS = {"DataType", "BaseExtension", "Extension", "Map", "Null", "Unknown", "Utf8"}
"""Bases, an alias, and what no user's table is of; Null is below."""


def test_every_type_of_polars_has_a_rule() -> None:
    there = {
        name
        for name in dir(pl)
        if isinstance(getattr(pl, name), type) and issubclass(getattr(pl, name), pl.DataType)
    }
    decided = {(one if isinstance(one, type) else type(one)).__name__ for one in TYPED}
    assert there - OTHERS - decided <= {one.__name__ for one in INTEGERS}


def values(fitted: Fitted) -> list[Any]:
    return fitted.values.to_list()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", TYPED, ids=str)
def test_a_typed_column_gives_the_same_values_or_misfits(dtype: Any, kind: Kind) -> None:
    held, wanted = TYPED[dtype]
    column = pl.Series("c", [*held, None], dtype=dtype)
    found = fit(column, kind)
    if kind in wanted:
        assert values(found) == [*wanted[kind], None]
    elif kind in ("bool", "id") and dtype.is_numeric():
        assert kind == "bool" or found.misfits in (0, len(held))
    else:
        assert (found.misfits, found.first_misfit) == (len(held), 0)
    assert found.misfits == sum(one is None for one in values(found)) - 1
    assert found.values.name == "c"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", sorted(INTEGERS, key=str))
def test_integers_of_every_width_are_numbers(dtype: type[pl.DataType], kind: Kind) -> None:
    wanted: dict[Kind, list[Any]] = {
        "float": [0.0, 1.0],
        "int": [0, 1],
        "bool": [False, True],
        "id": ["0", "1"],
    }
    assert values(fit(pl.Series([0, 1], dtype=dtype), kind)) == wanted.get(kind, [None, None])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [pl.Null, *TYPED], ids=str)
def test_a_column_of_nulls_is_of_every_type(dtype: Any, kind: Kind) -> None:
    for rows in (0, 2):
        found = fit(pl.Series([None] * rows, dtype=dtype), kind)
        assert found.misfits == 0
        assert found.values.dtype == fit(pl.Series(["1"], dtype=pl.String), kind, text=True).values.dtype


TEXTS: dict[Kind, dict[str, Any]] = {
    "float": {
        "1": 1.0,
        "-1.5": -1.5,
        "+2": 2.0,
        ".5": 0.5,
        "5.": 5.0,
        "1e5": 1e5,
        "2E-3": 0.002,
        "007": 7.0,
        "0.1": 0.1,
        f"{BIG + 1}.0": float(BIG),
        "1e999": math.inf,
        "": None,
    },
    "int": {
        "1": 1,
        "-7": -7,
        "+3": 3,
        "007": 7,
        "1.0": 1,
        "1e3": 1000,
        str(2**63 - 1): 2**63 - 1,
        str(-(2**63)): -(2**63),
        "": None,
    },
    "bool": {"true": True, "FALSE": False, "True": True, "1": True, "0.0": False, "": None},
    "str": dict.fromkeys(
        ["02139", "1.10", "NA", "null", "", " x ", "True", "1e5", "2024-01-02", "ä\n,"]
    ),
    "id": dict.fromkeys(["007", "7", "9223372036854775809", "x y"]),
    "time": {
        "2024-01-01T12:00:00Z": AT,
        "2024-01-01 12:00:00+00:00": AT,  # pandas
        "2024-01-01T12:00:00.000000+0000": AT,  # Polars
        "2024-01-01 13:00:00+01": AT,  # PostgreSQL
        "2024-01-01T12:00Z": AT,
        "2024-01-01t06:30:00.250-05:30": AT + timedelta(milliseconds=250),
        "2024-01-01T12:00:00.123456789Z": AT + timedelta(microseconds=123_456),
        "": None,
    },
}
MISFITS: dict[Kind, list[str]] = {
    "float": [
        "nan",
        "NaN",
        "inf",
        "-Infinity",
        "1_000",
        " 1",
        "1 ",
        "1,5",
        "0x10",
        "1e",
        "e5",
        ".",
        "٣",
        str(BIG + 1),
        "1\n",
    ],
    "int": [
        "9007199254740994.0",
        "3.7",
        "1e300",
        "1_000",
        " 1",
        "0x10",
        "--1",
        str(2**63),
        "true",
        "nan",
    ],
    "bool": ["yes", "t", "2", "-1", "1.5", "0.3", " true", "NA", "on"],
    "time": [
        *("2024-01-01T12:00:00", "2024-01-01", "12:00:00Z", "1704110400", "01/02/2024 12:00:00Z", "now"),
        *(
            "2024-13-01T12:00:00Z",
            "2024-02-30T12:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T12:00:60Z",
        ),
        *("2024-01-01T12:00:00 UTC", " 2024-01-01T12:00:00Z", "0000-01-01T00:00:00Z"),
        *("9999-12-31T23:59:59-01:00", "2024-01-01T12:00:00+25:00"),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_read_as_the_declared_type(kind: Kind) -> None:
    written = TEXTS[kind]
    found = fit(pl.Series([*written, None], dtype=pl.String), kind, text=True)
    as_it_stands = kind in ("str", "id")
    assert values(found) == [*(written if as_it_stands else written.values()), None]
    assert found.misfits == 0


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in MISFITS.items() for text in texts]
)
def test_other_text_is_a_misfit(kind: Kind, text: str) -> None:
    right = next(iter(TEXTS[kind]))
    found = fit(pl.Series([right, text, None, text]), kind, text=True)
    assert (found.misfits, found.first_misfit) == (2, 1)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.none()))
def test_every_float_comes_back_from_its_text(numbers: list[float | None]) -> None:
    texts = pl.Series([None if one is None else repr(one) for one in numbers], dtype=pl.String)
    assert values(fit(texts, "float", text=True)) == numbers


@given(st.lists(st.integers(-(2**65), 2**65)), st.sampled_from(KINDS))
def test_an_integer_is_itself_or_a_misfit_from_text_and_typed(numbers: list[int], kind: Kind) -> None:
    typed = fit(pl.Series(numbers, dtype=pl.Int128), kind)
    told = fit(pl.Series([str(one) for one in numbers], dtype=pl.String), kind, text=True)
    for number, one, other in zip(numbers, values(typed), values(told), strict=True):
        assert one is None or (one == number if kind != "id" else one == str(number))
        assert one == other or kind in ("str", "time")


@given(st.lists(st.datetimes(YEAR_1700, YEAR_2200), min_size=1), st.integers(-14, 14))
def test_a_time_is_the_same_instant_in_every_zone_and_form(naive: list[datetime], hours: int) -> None:
    moments = [one.replace(tzinfo=timezone(timedelta(hours=hours))) for one in naive]
    wanted = [one.astimezone(UTC) for one in moments]
    assert values(fit(pl.Series([one.isoformat() for one in moments]), "time", text=True)) == wanted
    assert values(fit(pl.Series(wanted, dtype=pl.Datetime("ns", "UTC")), "time")) == wanted
    assert values(fit(from_pandas(pd.Series(pd.to_datetime(moments), name="t")), "time")) == wanted


PANDAS: list[tuple[pd.Series, Kind, list[Any]]] = [
    (pd.Series([1.0, None, 3.0]), "int", [1, None, 3]),  # what pandas makes of [1, None, 3]
    (pd.Series([1, None], dtype="Int64"), "int", [1, None]),
    (pd.Series([1.5, np.nan, None]), "float", [1.5, None, None]),
    (pd.Series([1, 0, None]), "bool", [True, False, None]),
    (pd.Series([True, None], dtype="boolean"), "bool", [True, None]),
    (pd.Series([True, np.nan, False], dtype=object), "bool", [True, None, False]),
    (pd.Series(["a", np.nan, None], dtype=object), "str", ["a", None, None]),
    (pd.Series(["a", None], dtype="category"), "str", ["a", None]),
    (pd.Series(["a", None], dtype="string"), "id", ["a", None]),
    (pd.Series([7, 8], dtype="category"), "id", ["7", "8"]),
    (pd.Series([pd.Timestamp(AT), pd.NaT]), "time", [AT, None]),
    (pd.Series([pd.Timestamp(AT).tz_convert("+02:00")]), "time", [AT]),
    (pd.Series([AT, None], dtype=object), "time", [AT, None]),
    (pd.Series([pd.Timestamp(AT).tz_convert("+05:30")]), "time", [AT]),
    (
        pd.Series([AT, AT.astimezone(timezone(timedelta(hours=-3))), None], dtype=object),
        "time",
        [AT, AT, None],
    ),
    (pd.Series([Decimal("1.5"), None], dtype=object), "float", [1.5, None]),
]


@pytest.mark.parametrize(("column", "kind", "wanted"), PANDAS, ids=lambda one: str(one)[:40])
def test_missing_values_of_pandas_are_null(column: pd.Series, kind: Kind, wanted: list[Any]) -> None:
    found = fit(from_pandas(column.rename("c")), kind)
    assert values(found) == wanted
    assert found.misfits == 0


@pytest.mark.parametrize(
    "held",
    [
        ["a", 1],
        [True, 1],
        [1, "a"],
        [1.5, "a"],
        [1, 2**70],
        [object()],
        [1 + 2j],
        [AT, AT.replace(tzinfo=None)],
    ],
    ids=lambda held: ", ".join(type(one).__name__ for one in held),
)
def test_a_column_of_pandas_of_several_types_is_refused_by_name(held: list[Any]) -> None:
    with pytest.raises(SchemaError, match=r"column 'c' .* is not of one type"):
        from_pandas(pd.Series(held, dtype=object, name="c"))


def test_a_nan_is_left_to_the_caller_and_is_no_int() -> None:
    column = pl.Series([math.nan, math.inf])
    assert math.isnan(values(fit(column, "float"))[0])
    assert fit(column, "int").misfits == fit(column, "bool").misfits == 2


def test_a_time_that_python_does_not_have_is_a_misfit() -> None:
    for unit, since in (("us", 2**61), ("ms", 2**60), ("ms", -(2**60))):
        column = pl.Series([0, since]).cast(pl.Datetime(unit, "UTC"))  # type: ignore[arg-type] # a unit
        assert fit(column, "time").first_misfit == 1
