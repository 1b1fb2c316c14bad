"""Features of one declaration out of what was recorded under several."""

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.features.values.projection import (
    DTYPES,
    Projection,
    function_beside,
    stored_columns,
)
from headwater.spec.data.feature import Feature, FeatureKind, as_recorded
from headwater.spec.data.label import LabelRule
from headwater.spec.declaration import Declaration
from headwater.spec.errors import ChangedError, DeclarationError, SchemaError


def declared(*features: FeatureKind) -> Declaration:
    return Declaration(
        task="binary", features=tuple(map(as_recorded, features)), label=LabelRule(wait="1d")
    )


DECLARATIONS = {
    1: declared(Feature("a", int), Feature("k", str)),
    2: declared(Feature("a", float), Feature("k", str), Feature("n", bool)),
    3: declared(Feature("a", str), Feature("K", int)),
}
COLUMNS = {
    ("a", "int"): "a",
    ("k", "str"): "k",
    ("a", "float"): "a@2",
    ("n", "bool"): "n",
    ("a", "str"): "a@3",
    ("K", "int"): "K@2",
}
RECORDED = [
    (1, {"a": 1, "k": "x"}),
    (2, {"a@2": 2.5, "k": "y", "n": True}),
    (1, {"a": 3, "k": None}),
    (3, {"a@3": "4", "K@2": 7}),
    (3, {"a@3": "word", "K@2": 8}),
]


def functions(name: str) -> Callable[[Any], object]:
    def total(recorded: dict[str, Any]) -> float:
        return float(len(recorded["k"] or ""))

    def odd(value: Any) -> object:
        return "no number" if value == "word" else float(value)

    def named(recorded: dict[str, Any]) -> str:
        return " ".join(f"{name}={value}" for name, value in recorded.items())

    def exits(_: Any) -> object:
        raise SystemExit(3)

    known: dict[str, Callable[[Any], object]] = {
        "total": total,
        "odd": odd,
        "float": float,
        "tenth": lambda value: value / 10 if type(value) is int else value,
        "named": named,
        "huge": lambda _: 2**70,
        "surrogate": lambda _: "\ud800",
        "exits": exits,
    }
    return known[name.rsplit(":", maxsplit=1)[-1]]


def projected(rows: Sequence[int], *features: FeatureKind) -> list[tuple[object, ...]]:
    types = {column: DTYPES[dtype] for (_, dtype), column in COLUMNS.items()}
    some = [RECORDED[row] for row in rows]
    frame = pl.DataFrame([values for _, values in some], schema=types)
    numbers = pl.Series([number for number, _ in some], dtype=pl.Int32)
    places = pl.Series([10 + row for row in rows], dtype=pl.Int64)
    made = Projection(features, DECLARATIONS, functions).apply(frame, numbers, places)
    assert made.schema == {one.name: DTYPES[one.dtype] for one in features}
    return made.rows()


def test_a_name_that_was_declared_again_with_another_type_has_a_column_of_its_own() -> None:
    assert stored_columns(DECLARATIONS) == COLUMNS
    assert stored_columns({1: DECLARATIONS[1]}) == {("a", "int"): "a", ("k", "str"): "k"}


def test_a_wider_type_takes_what_was_recorded() -> None:
    assert projected([0, 1, 2], Feature("a", float)) == [(1.0,), (2.5,), (3.0,)]


def test_what_was_recorded_without_a_feature_has_its_default() -> None:
    assert projected([0, 1], Feature("n", bool, nullable=True)) == [(None,), (True,)]
    assert projected([0, 1], Feature("n", bool, default=False)) == [(False,), (True,)]
    assert projected([0], Feature("z", float, default=1)) == [(1.0,)]
    assert projected([0, 1, 2], Feature("z", float, fill=lambda_named("total"))) == [
        (1.0,),
        (1.0,),
        (0.0,),
    ]


def lambda_named(name: str) -> Callable[[Any], object]:
    def function(_: Any) -> object:
        return None

    function.__qualname__ = name
    return function


def test_a_renamed_feature_has_the_values_of_its_earlier_names() -> None:
    renamed = Feature("code", str, nullable=True, was=("kk", "k"))
    assert projected([0, 3, 1], renamed) == [("x",), (None,), ("y",)]


def test_another_type_is_refused_unless_something_converts_it() -> None:
    with pytest.raises(ChangedError, match="'a' is float, and was recorded as str"):
        projected([0, 3], Feature("a", float))
    assert projected([3, 0, 1], Feature("a", float, convert=float)) == [(4.0,), (1.0,), (2.5,)]


@pytest.mark.parametrize(("convert", "why"), [("float", "ValueError"), ("odd", "makes 'no number'")])
def test_what_cannot_be_converted_is_named_by_its_offset(convert: str, why: str) -> None:
    feature = Feature("a", float, convert=lambda_named(convert))
    with pytest.raises(SchemaError, match=rf"'a' of the examples \[14, 15\) .*{convert}.*{why}"):
        projected([3, 4, 0], feature)


def test_a_fill_of_another_type_is_named_by_its_offset() -> None:
    feature = Feature("z", str, fill=lambda_named("total"))
    with pytest.raises(SchemaError, match=r"'z' of the examples \[10, 11\).*makes 1.0"):
        projected([0, 1], feature)


def test_a_conversion_that_is_given_counts_also_where_the_type_is_wider() -> None:
    assert projected([0, 1], Feature("a", float, convert=lambda_named("tenth"))) == [(0.1,), (2.5,)]


def test_a_fill_gets_the_features_of_the_example_s_own_declaration() -> None:
    seen = Feature("z", str, fill=lambda_named("named"))
    assert projected([1, 0], seen) == [("a=2.5 k=y n=True",), ("a=1 k=x",)]


@pytest.mark.parametrize("name", ["huge", "surrogate", "exits"])
def test_what_no_value_of_the_type_comes_of_is_named(name: str) -> None:
    dtype: Any = {"huge": int, "surrogate": str, "exits": int}[name]
    with pytest.raises(SchemaError, match=r"'z' of the examples \[10, 11\)"):
        projected([0], Feature("z", dtype, fill=lambda_named(name)))


def test_a_whole_number_that_no_float_is_is_not_rounded() -> None:
    frame = pl.DataFrame({"a": [2**53 + 1], "k": [None], "a@2": [None], "n": [None], "a@3": [None]})
    numbers, places = pl.Series([1], dtype=pl.Int32), pl.Series([7])
    projection = Projection((Feature("a", float),), {1: DECLARATIONS[1]}, functions)
    with pytest.raises(SchemaError, match=r"\[7, 8\).*beyond 2\*\*53"):
        projection.apply(frame, numbers, places)


@given(st.lists(st.integers(0, 3)))
def test_rows_are_projected_as_each_by_itself(rows: list[int]) -> None:
    features = (
        Feature("a", float, convert=float),
        Feature("k", str, nullable=True),
        Feature("n", bool, default=True),
    )
    assert projected(rows, *features) == [projected([row], *features)[0] for row in rows]


def test_functions_are_those_of_the_model_s_file() -> None:
    assert function_beside(model, "int") is int
    assert function_beside(model, f"{__name__}:model") is model
    for absent in (f"{__name__}:absent", "elsewhere:model", "model"):
        with pytest.raises(DeclarationError, match=f"'{absent}' is no function"):
            function_beside(model, absent)


def model() -> object:
    raise AssertionError


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"was": "a"}, "was="),
        ({"was": ()}, "was="),
        ({"was": "not a name"}, "was="),
        ({"default": "x"}, "default="),
        ({"default": float("nan")}, "default="),
        ({"default": True}, "default="),
        ({"default": 10**400}, "default="),
        ({"was": 5}, "was="),
        ({"default": 1.0, "fill": model}, "both default and fill"),
        ({"convert": lambda value: value}, "no function with a name"),
        ({"fill": lambda row: row}, "no function with a name"),
    ],
)
def test_a_wrong_way_of_carrying_over_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(DeclarationError, match=why):
        Feature("a", float, **fields)
