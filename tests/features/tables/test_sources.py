"""Sources of feature tables: Parquet, Delta and functions, and the rows that are refused."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from deltalake import write_deltalake
from msgspec.structs import replace

from headwater.features.tables.table_lookup import TableLookup, write_lookup
from headwater.features.tables.table_rows import conform, rows_of
from headwater.features.tables.table_sources import read_whole
from headwater.infra.settings import Settings
from headwater.infra.store.open_storage import open_storage
from headwater.infra.store.storage import Storage
from headwater.spec.data.feature_table import FeatureTable
from headwater.spec.data.source import DeltaSource, ParquetSource, QuerySource, Source
from headwater.spec.errors import NotFoundError, SchemaError, StorageError, TableError

TABLE = FeatureTable(
    name="shops", entity=("town", "street"), source=ParquetSource("shops.parquet"), every="1h"
)
FEATURES = (
    TABLE.feature("sales", int),
    TABLE.feature("rate", float, nullable=True, low=0, high=1),
    TABLE.feature("open", bool),
    TABLE.feature("kind", str, categories=("big", "small")),
)
FRAME = pl.DataFrame(
    {
        "town": ["Ulm", "Ulm", "Bonn"],
        "street": [3, 1, 3],
        "sales": [30, 10, 2**63 - 1],
        "rate": [0.1 + 0.2, None, 1.0],
        "open": [True, False, True],
        "kind": ["big", "small", "big"],
        "more": [0, 0, 0],
    }
)


def as_polars() -> pl.DataFrame:
    return FRAME


def as_lazy() -> pl.LazyFrame:
    return FRAME.lazy()


def as_pandas() -> pd.DataFrame:
    return FRAME.drop("open").to_pandas().assign(open=[True, False, True])


def as_list() -> list[int]:
    return [1]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(Settings(home=tmp_path / "home"))


def looked_up(table: FeatureTable, storage: Storage, path: Path) -> dict[tuple[str, ...], Any]:
    frame = conform(table, FEATURES, read_whole(table.source, storage))
    write_lookup(path, table.entity, FEATURES, rows_of(table, frame))
    lookup = TableLookup(path, table.entity, FEATURES)
    keys = [("Ulm", "1"), ("Ulm", "3"), ("Bonn", "3"), ("Bonn", "1"), ("Ulm", '3","')]
    found = {key: lookup.find(key) for key in keys}
    lookup.close()
    return {key: one.values for key, one in found.items() if one is not None}


@pytest.mark.parametrize("kind", ["parquet", "delta", as_polars, as_lazy, as_pandas])
def test_every_source_returns_the_same_rows(kind: Any, storage: Storage, tmp_path: Path) -> None:
    address = str(tmp_path / "shops")
    source: Source
    if kind == "parquet":
        source = ParquetSource(address)
        FRAME.write_parquet(address)
    elif kind == "delta":
        source = DeltaSource(address)
        write_deltalake(address, FRAME.head(1))
        write_deltalake(address, FRAME, mode="overwrite")
    else:
        source = QuerySource(kind)
    found = looked_up(replace(TABLE, source=source), storage, tmp_path / "found.sqlite")
    assert found == {
        ("Ulm", "1"): {"sales": 10, "rate": None, "open": False, "kind": "small"},
        ("Ulm", "3"): {"sales": 30, "rate": 0.1 + 0.2, "open": True, "kind": "big"},
        ("Bonn", "3"): {"sales": 2**63 - 1, "rate": 1.0, "open": True, "kind": "big"},
    }
    assert all(type(one["open"]) is bool and type(one["sales"]) is int for one in found.values())


def test_of_several_rows_of_a_key_the_newest_counts(storage: Storage) -> None:
    table = replace(TABLE, at="at")
    times = [datetime(2026, 1, day, tzinfo=UTC) for day in (2, 1, 3)]
    frame = FRAME.with_columns(town=pl.lit("Ulm"), street=pl.lit(1), at=pl.Series(times))
    (row,) = rows_of(table, conform(table, FEATURES, frame))
    assert row == (("Ulm", "1"), 1_767_398_400_000_000, (2**63 - 1, 1.0, True, "big"))
    with pytest.raises(SchemaError, match="times with a zone"):
        conform(table, FEATURES, frame.with_columns(pl.col("at").dt.replace_time_zone(None)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"sales": ["a", "b", "c"]}, "'sales' of table 'shops' is String"),
        ({"sales": [0.5, 1.0, 2.0]}, "'sales' of table 'shops' is Float64"),
        ({"sales": [None, 1, 2]}, "'sales' is null in 1 rows"),
        ({"rate": [0.5, 1.5, 2.0]}, "'rate' is outside what it declares in 2 rows"),
        ({"open": [0, 1, 2]}, "'open' of table 'shops' is Int64"),
        ({"kind": ["big", "huge", "small"]}, "'kind' is outside .*huge"),
        ({"town": ["", "Ulm", "Bonn"]}, "'town' of table 'shops' is null, empty, longer"),
        ({"street": [0.5, 1.0, 2.0]}, "'street' of table 'shops' is Float64"),
        ({"street": [3, 3, 3]}, "2 rows .* share a key: Ulm"),
    ],
)
def test_rows_that_do_not_fit_are_named(changed: dict[str, Any], said: str) -> None:
    frame = FRAME.with_columns(pl.Series(name, values) for name, values in changed.items())
    with pytest.raises(SchemaError, match=said):
        conform(TABLE, FEATURES, frame)


def test_a_column_of_another_name_is_read_by_it(storage: Storage, tmp_path: Path) -> None:
    other = [replace(feature, column=f"{feature.name} (EUR)") for feature in FEATURES]
    named = {feature.name: feature.source_column for feature in other}
    assert conform(TABLE, other, FRAME.rename(named)).equals(conform(TABLE, FEATURES, FRAME))
    with pytest.raises(SchemaError, match=r"no column .*\(EUR\)"):
        conform(TABLE, other, FRAME)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(SchemaError, match="no column kind; it has town"):
        conform(TABLE, FEATURES, FRAME.drop("kind"))


def test_a_missing_source_is_named(storage: Storage, tmp_path: Path) -> None:
    for kind in (ParquetSource, DeltaSource):
        with pytest.raises(NotFoundError, match=r"no table at .*gone"):
            read_whole(kind(str(tmp_path / "gone")), storage)
    with pytest.raises(SchemaError, match="returns list, not a dataframe"):
        read_whole(QuerySource(as_list), storage)


def test_the_same_rows_make_the_same_file(storage: Storage, tmp_path: Path) -> None:
    frame = conform(TABLE, FEATURES, FRAME)
    for name in ("one", "two"):
        write_lookup(tmp_path / name, TABLE.entity, FEATURES, rows_of(TABLE, frame))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_for_other_keys_or_types_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table"
    write_lookup(path, TABLE.entity, FEATURES, rows_of(TABLE, conform(TABLE, FEATURES, FRAME)))
    TableLookup(path, TABLE.entity, FEATURES[:1]).close()  # fewer features are in it, too
    for entity, features in (
        (("street", "town"), FEATURES),
        (TABLE.entity, (TABLE.feature("sales", float),)),
        (TABLE.entity, (TABLE.feature("rate", float),)),  # which has a null
    ):
        with pytest.raises(TableError, match="headwater features materialise"):
            TableLookup(path, entity, features)
    path.write_bytes(b"no table at all")
    with pytest.raises(StorageError, match="cannot be read"):
        TableLookup(path, TABLE.entity, FEATURES)
