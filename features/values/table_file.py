"""Reading of a user's tables: Parquet with its types, CSV as text, dataframes of Polars and pandas.

A CSV has a line of names; its fields are split by commas, those of a TSV by tabs; both may be packed by
gzip. Each row has a field a name. A field in quotes may hold commas, line ends and doubled quotes. Empty
lines are skipped.
"""

import csv
import gzip
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import pandas as pd
import polars as pl

from headwater.features.values.column_values import from_pandas
from headwater.spec.errors import NotFoundError, SchemaError, few

__all__ = ["Table", "read_table"]

_PARQUET = (".parquet", ".pq")
_TEXT = {".csv": ",", ".tsv": "\t"}


class Table(NamedTuple):
    """Some columns of a table.

    Parameters
    ----------
    frame
        The columns, in the table's order of rows.
    is_text
        Whether it is a text file: then all columns are text, and null if a field is empty.
    place
        Says where a row stands, given its number from 0: ``"line 3"`` of a text file, as an editor
        counts; ``"row 1 (from 0)"`` of others.
    """

    frame: pl.DataFrame
    is_text: bool
    place: Callable[[int], str]


def read_table(
    source: Path | pl.DataFrame | pd.DataFrame, wanted: Sequence[str], null: Sequence[str] = ()
) -> Table:
    """Read some columns of a table.

    Parameters
    ----------
    source
        A Parquet, CSV or TSV file, or a dataframe.
    wanted
        Names of the columns.
    null
        Words that stand for null in a text file, where they are not in quotes; an empty field always
        does.

    Raises
    ------
    NotFoundError
        If the file does not exist.
    SchemaError
        If it is no table, or lacks a column; the text says which ones it has.
    """
    names = list(dict.fromkeys(wanted))
    if isinstance(source, pl.DataFrame):
        _check_names(source.columns, names)
        return Table(source.select(names), False, _row)
    if isinstance(source, pd.DataFrame):
        _check_names(list(source.columns), names)
        columns = [from_pandas(source[name]).alias(name) for name in names]
        return Table(pl.DataFrame(columns), False, _row)
    return _read_file(Path(source), names, null)


def _read_file(path: Path, names: list[str], null: Sequence[str]) -> Table:
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    packed = endings[-1:] == [".gz"]
    ending = endings[0] if packed and len(endings) == 2 else "".join(endings[-1:])
    if not path.is_file():
        raise NotFoundError(f"no file {str(path)!r}", hint="give a .parquet or .csv file")
    if ending in _TEXT:
        return _read_text(path, _TEXT[ending], names, null, packed=packed)
    if ending not in _PARQUET or packed:
        raise SchemaError(
            f"{path} is no table that is known by its ending",
            hint="give .parquet, .csv, .tsv, .csv.gz or .tsv.gz; rename the file if it is one of them",
        )
    return Table(_read_parquet(path, names), False, _row)


def _read_parquet(path: Path, names: list[str]) -> pl.DataFrame:
    import pyarrow as pa  # noqa: PLC0415 - dataframes need it not
    from pyarrow import parquet  # noqa: PLC0415

    try:
        schema = parquet.read_schema(path)
        _check_names(schema.names, names)
        zones = [str(getattr(field.type, "tz", None) or "UTC") for field in schema]
        if not any(zone[0] in "+-" for zone in zones):
            return pl.read_parquet(path, columns=names)
        table = parquet.read_table(path, columns=names)  # Polars has no zones such as +05:30
        utc = [
            pa.field(
                field.name,
                pa.timestamp(field.type.unit, "UTC") if getattr(field.type, "tz", None) else field.type,
            )
            for field in table.schema
        ]
        return pl.DataFrame(table.cast(pa.schema(utc)))
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, error, "check that it is Parquet, and whole") from error


def _read_text(path: Path, split: str, names: list[str], null: Sequence[str], *, packed: bool) -> Table:
    import pyarrow as pa  # noqa: PLC0415 - Parquet and Polars need it not
    from pyarrow import csv as arrow_csv  # noqa: PLC0415

    lines = _Lines(path, split, packed=packed)
    try:
        _check_names(lines.names(), names)
        with pa.input_stream(str(path), compression="gzip" if packed else None) as stream:
            read = arrow_csv.read_csv(
                stream,
                parse_options=arrow_csv.ParseOptions(delimiter=split, newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=names,
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=["", *null],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
        lines.check_quotes()
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        hint = lines.uneven() or "give a line of names, text in UTF-8"
        raise _unreadable(path, error, hint) from error
    frame = pl.DataFrame({name: pl.Series(read[name], dtype=pl.String) for name in names})
    return Table(frame, True, lines.place)


class _Lines:
    """The lines of a text file, read again to find the line of a row, since parsing keeps no count."""

    def __init__(self, path: Path, split: str, *, packed: bool) -> None:
        self._path = path
        self._split = split
        self._packed = packed

    def names(self) -> list[str]:
        """Return the fields of the first line."""
        return next((fields for _, fields in self._rows()), [])

    def place(self, row: int) -> str:
        """Return the place of a row in the file, by its number from 0 behind the line of names."""
        lines = (line for number, (line, _) in enumerate(self._rows()) if number == row + 1)
        return f"line {next(lines, row + 2)}"

    def check_quotes(self) -> None:
        """Check that each field in quotes ends; an open one would swallow all rows behind it.

        Raises
        ------
        csv.Error
            If one does not.
        """
        with self._opened() as text:
            if not sum(line.count('"') for line in text) % 2:
                return
        with self._opened() as text:
            reader, line = csv.reader(text, delimiter=self._split, strict=True), 1
            try:
                for _ in reader:
                    line = reader.line_num + 1
            except csv.Error as error:
                raise csv.Error(f"line {line}: {error}: a quote there is not closed") from error

    def uneven(self) -> str:
        """Return a hint that names the first line with another number of fields; or empty text."""
        try:
            width = len(self.names())
            wrong = ((n, len(fields)) for n, fields in self._rows() if len(fields) != width)
            line, count = next(wrong, (0, 0))
        except (OSError, EOFError, UnicodeDecodeError, csv.Error):
            return ""
        return f"mend line {line}: it has {count} fields, the line of names {width}" if line else ""

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each row's first line, from 1, and its fields; empty lines are skipped."""
        with self._opened() as text:
            reader = csv.reader(text, delimiter=self._split)
            line = 1
            for fields in reader:
                if fields:
                    yield line, fields
                line = reader.line_num + 1

    def _opened(self) -> TextIO:
        if self._packed:
            return gzip.open(self._path, "rt", encoding="utf-8-sig", newline="")
        return self._path.open(encoding="utf-8-sig", newline="")


def _row(row: int) -> str:
    return f"row {row} (from 0)"


def _check_names(names: Sequence[str], columns: list[str]) -> None:
    if missing := [name for name in columns if name not in names]:
        raise SchemaError(
            f"the table has no column {few(missing)}; it has {few(names, 20)}",
            hint="name the columns with --id, --served-at, --label and --known-at",
        )
    if twice := [name for name in columns if names.count(name) > 1]:
        raise SchemaError(
            f"the table has several columns {few(twice)}", hint="leave one, or rename the others"
        )


def _unreadable(path: Path, error: BaseException, hint: str) -> SchemaError:
    first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return SchemaError(f"{path} cannot be read: {first}", hint=hint)
