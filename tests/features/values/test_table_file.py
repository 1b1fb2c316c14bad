"""Tables as files: text as it stands, lines as an editor counts them, and endings."""

import gzip
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from headwater.features.values.table_file import read_table
from headwater.spec.errors import NotFoundError, SchemaError


def written(folder: Path, body: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(body.encode() if isinstance(body, str) else body)
    return path


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ("a,b\n1,02139\n", [("1", "02139")]),
        ("\ufeffa,b\n1,2\n", [("1", "2")]),  # as spreadsheets write it
        ("b,more,a\r\n2,x,1\r\n", [("1", "2")]),
        ('a,b\n,""\n', [(None, "")]),
        ('a,b\nNA,null\n"NA"," x "\n', [("NA", "null"), ("NA", " x ")]),
        ('a,b\n"x, ""y""","1\n2"\n\n3,4\n', [('x, "y"', "1\n2"), ("3", "4")]),
        ("a,b\n1,2", [("1", "2")]),
        ("a,b\n", []),
    ],
)
def test_a_csv_is_text_as_it_stands(
    tmp_path: Path, body: str, rows: list[tuple[str | None, ...]]
) -> None:
    table = read_table(written(tmp_path, body), ["a", "b"])
    assert table.frame.rows() == rows
    assert table.is_text
    assert set(table.frame.dtypes) == {pl.String}


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
@pytest.mark.parametrize("wanted", [["a", "b"], ["a"]])
@pytest.mark.parametrize("body", ['a,b\n1,x\n2,"y\n3,z\n', 'a,b\n1,x\n2,"y""\n', 'a,b\n1,x\n2,"'])
def test_a_quote_that_is_not_closed_is_refused(
    tmp_path: Path, name: str, wanted: list[str], body: str
) -> None:
    path = written(tmp_path, gzip.compress(body.encode()) if name.endswith("gz") else body, name)
    with pytest.raises(SchemaError, match=r"line 3: .* a quote there is not closed"):
        read_table(path, wanted).frame  # noqa: B018 - it is read here


@pytest.mark.parametrize("body", ['a,b\n1,x\n2,"y\n3,z\n4,"v\n5,w\n', 'a,b\n1,x\n2,"5"y\n'])
def test_rows_between_two_open_quotes_are_not_swallowed(tmp_path: Path, body: str) -> None:
    with pytest.raises(SchemaError, match=r"line 3: .* or text follows the one that closes"):
        read_table(written(tmp_path, body), ["a", "b"]).frame  # noqa: B018 - it is read here


def test_a_long_field_hides_no_line(tmp_path: Path) -> None:
    long = "x" * 200_000
    table = read_table(written(tmp_path, f'a,b\n1,"{long}"\n2,y\n'), ["a", "b"])
    assert table.frame["b"].to_list() == [long, "y"]
    assert table.place(1) == "line 3"


def test_decimals_wider_than_those_of_polars_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"a": pa.array([Decimal(1)], pa.decimal256(60, 2)), "b": [1]}), path)
    with pytest.raises(SchemaError, match="more than 38 digits in column a"):
        read_table(path, ["a", "b"])
    assert read_table(path, ["b"]).frame.rows() == [(1,)]


def test_a_quote_within_a_field_is_text(tmp_path: Path) -> None:
    path = written(tmp_path, 'a,b\n1,5" pipe\n2,y\n')
    assert read_table(path, ["a", "b"]).frame.rows() == [("1", '5" pipe'), ("2", "y")]


def test_words_for_null_are_null_unless_they_are_in_quotes(tmp_path: Path) -> None:
    path = written(tmp_path, 'a,b\nNA,"NA"\n-,NAN\n')
    assert read_table(path, ["a", "b"], ["NA", "-"]).frame.rows() == [(None, "NA"), (None, "NAN")]


def test_a_row_is_named_by_the_line_that_an_editor_shows(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, 'a,b\n1,"x\ny"\n\n2,z\r\n3,z\n'), ["a", "b"])
    assert [table.place(row) for row in range(3)] == ["line 2", "line 5", "line 6"]
    table = read_table(table.frame, ["a"])
    assert table.place(0) == "row 0 (from 0)"


@pytest.mark.parametrize(
    "name", ["t.csv", "T.CSV", "t.tsv", "t.csv.gz", "T.TSV.GZ", "a.b.csv", "t.Parquet"]
)
def test_endings_say_what_a_file_is(tmp_path: Path, name: str) -> None:
    body = b"a\tb\n1\t2\n" if "tsv" in name.lower() else b"a,b\n1,2\n"
    path = written(tmp_path, gzip.compress(body) if name.lower().endswith("gz") else body, name)
    if name.endswith("Parquet"):
        pl.DataFrame({"a": ["1"], "b": ["2"]}).write_parquet(path)
    table = read_table(path, ["a", "b"])
    assert table.frame.rows() == [("1", "2")]
    assert table.place(0) == ("row 0 (from 0)" if name.endswith("Parquet") else "line 2")


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("t.xlsx", b"a,b\n1,2\n", "by its ending"),
        ("t", b"a,b\n1,2\n", "by its ending"),
        ("t.parquet.gz", b"a,b\n1,2\n", "by its ending"),
        ("t.parquet", b"a,b\n1,2\n", "cannot be read"),
        ("t.csv", b"", "no column a, b"),
        ("t.csv", b"a;b\n1;2\n", "no column a, b; it has a;b"),
        ("t.csv", b"a,b,a\n1,2,3\n", "several columns a"),
        ("t.csv", b"a,b\n1,2\n\n3\n", "mend line 4: it has 1 fields, the line of names 2"),
        ("t.csv", b"a,b\n1,2,3\n", "mend line 2: it has 3 fields"),
        ("t.csv", b'a,b\n"1,2\n3,4\n', "mend line 2"),
        ("t.csv", b"a,b\n\xff,2\n", "UTF"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "cannot be read"),
        ("t.csv.gz", b"a,b\n1,2\n", "cannot be read"),
        ("t.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, name: str, body: bytes, said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        read_table(written(tmp_path, body, name), ["a", "b"]).frame  # noqa: B018 - it is read here


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no file"):
        read_table(tmp_path / "t.csv", ["a"])


def test_a_zone_that_is_an_offset_is_read_from_parquet(tmp_path: Path) -> None:
    at = datetime(2024, 1, 1, 12, tzinfo=UTC)
    path = tmp_path / "t.parquet"
    pd.DataFrame({"t": [pd.Timestamp(at).tz_convert("+05:30")], "n": [1]}).to_parquet(path)
    assert read_table(path, ["t", "n"]).frame.rows() == [(at, 1)]


@given(
    st.lists(
        st.tuples(*[st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"))] * 2),
        max_size=5,
    )
)
def test_text_that_polars_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str | None, str | None]]
) -> None:
    frame = pl.DataFrame(rows, schema={"a": pl.String, "b": pl.String}, orient="row")
    path = tmp_path_factory.mktemp("text") / "t.csv"
    frame.write_csv(path)
    assert read_table(path, ["a", "b"]).frame.equals(frame)
