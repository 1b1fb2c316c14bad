"""Reading of a user's tables: Parquet with its types, CSV as text, dataframes of Polars and pandas.

A CSV has a line of names; its fields are split by commas, those of a TSV by tabs; both may be packed by
gzip. Each row has a field a name. A field in quotes may hold commas, line ends and doubled quotes. Empty
lines are skipped.
"""

import csv
import gzip
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pandas as pd
import polars as pl

from headwater.features.values.column_values import from_pandas
from headwater.spec.errors import NotFoundError, SchemaError, few

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Table", "read_table"]

_PARQUET = (".parquet", ".pq")
_TEXT = {".csv": ",", ".tsv": "\t"}
_CHUNK_ROWS = 20_000
_BLOCK_BYTES = 4 << 20
_SHOWN = 60


class Table:
    """Some columns of a table, read a few rows at a time.

    Parameters
    ----------
    columns
        The names of all its columns.
    is_text
        Whether it is a text file: then all columns are text, and null if a field is empty.
    place
        Says where a row stands, given its number from 0: ``"line 3"`` of a text file, as an editor
        counts; ``"row 1 (from 0)"`` of others.
    chunks
        Reads the wanted columns, in the table's order of rows.
    size
        Rows, or bytes of a text file: what `chunks` has done counts up to it.
    """

    def __init__(
        self,
        columns: Sequence[str],
        chunks: Callable[[], Iterator[tuple[int, pl.DataFrame]]],
        size: int,
        *,
        is_text: bool = False,
        place: Callable[[int], str] | None = None,
    ) -> None:
        self.columns = tuple(columns)
        self.is_text = is_text
        self.place = place or _row
        self.size = size
        self._chunks = chunks

    def chunks(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield what is done by then, of :attr:`size`, and some rows.

        Raises
        ------
        SchemaError
            If the file cannot be read on.
        """
        return self._chunks()

    @property
    def frame(self) -> pl.DataFrame:
        """The whole table."""
        return pl.concat([frame for _, frame in self._chunks()])


def read_table(
    source: Path | pl.DataFrame | pd.DataFrame,
    wanted: Sequence[str],
    null: Sequence[str] = (),
    delimiter: str | None = None,
) -> Table:
    """Open a table, to read some of its columns.

    Parameters
    ----------
    source
        A Parquet, CSV or TSV file, or a dataframe.
    wanted
        Names of the columns.
    null
        Words that stand for null in a text file, where they are not in quotes; an empty field always
        does.
    delimiter
        What splits the fields of a text file; by its ending if None.

    Raises
    ------
    NotFoundError
        If the file does not exist.
    SchemaError
        If it is no table, or lacks a column; the text says which ones it has.
    """
    names = list(dict.fromkeys(wanted))
    if isinstance(source, pl.DataFrame | pd.DataFrame):
        _check_for_text("a dataframe", null, delimiter)
        return _of_frame(source, names)
    if not isinstance(source, str | Path):
        raise SchemaError(
            f"a {type(source).__name__} is no table",
            hint="give a file, or a dataframe of Polars (a LazyFrame: collect() it) or pandas",
        )
    path = Path(source)
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    packed = endings[-1:] == [".gz"]
    ending = endings[0] if packed and len(endings) == 2 else "".join(endings[-1:])
    if not path.is_file():
        raise NotFoundError(f"no file {str(path)!r}", hint="give a .parquet or .csv file")
    if ending in _TEXT:
        return _of_text(path, delimiter or _TEXT[ending], names, null, packed=packed)
    if ending not in _PARQUET or packed:
        raise SchemaError(
            f"{path} is no table that is known by its ending",
            hint="give .parquet, .csv, .tsv, .csv.gz or .tsv.gz; rename the file if it is one of them",
        )
    _check_for_text(str(path), null, delimiter)
    return _of_parquet(path, names)


def _check_for_text(what: str, null: Sequence[str], delimiter: str | None) -> None:
    given = [f"null={tuple(null)!r}"] * bool(null) + [f"delimiter={delimiter!r}"] * bool(delimiter)
    if given:
        raise SchemaError(
            f"{what} is no text file, and {few(given)} says how one is read",
            hint="leave that out: a typed table has nulls, and its own columns",
        )


def _of_frame(source: pl.DataFrame | pd.DataFrame, names: list[str]) -> Table:
    present = list(source.columns)
    _check_names(present, names)
    frame = (
        source.select(names)
        if isinstance(source, pl.DataFrame)
        else pl.DataFrame([from_pandas(source[name]).alias(name) for name in names])
    )

    def chunks() -> Iterator[tuple[int, pl.DataFrame]]:
        if frame.is_empty():
            yield 0, frame
        for start in range(0, frame.height, _CHUNK_ROWS):
            yield min(start + _CHUNK_ROWS, frame.height), frame.slice(start, _CHUNK_ROWS)

    return Table(present, chunks, frame.height)


def _of_parquet(path: Path, names: list[str]) -> Table:
    import pyarrow as pa  # noqa: PLC0415 - dataframes need it not
    from pyarrow import parquet  # noqa: PLC0415

    hint = "check that it is Parquet, and whole"
    try:
        metadata = parquet.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error, hint) from error
    _check_names(schema.names, names)
    if wide := [name for name in names if pa.types.is_decimal256(schema.field(name).type)]:
        raise SchemaError(
            f"{path} has decimals of more than 38 digits in column {few(wide)}",
            hint="write them with 38 digits at most, or as floats",
        )
    utc = pa.schema([_in_utc(schema.field(name)) for name in names])

    def chunks() -> Iterator[tuple[int, pl.DataFrame]]:
        done = 0
        try:
            with parquet.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(_CHUNK_ROWS, columns=names):
                    done += batch.num_rows
                    yield done, _as_frame(pa.Table.from_batches([batch]).select(names).cast(utc))
            if not done:
                yield 0, _as_frame(utc.empty_table())
        except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
            raise _unreadable(path, error, hint) from error

    return Table(schema.names, chunks, metadata.num_rows)


def _in_utc(field: "pa.Field") -> "pa.Field":
    """Return a column with its times in UTC: Polars has no zones such as +05:30."""
    import pyarrow as pa  # noqa: PLC0415 - dataframes need it not

    zoned = pa.types.is_timestamp(field.type) and field.type.tz is not None
    return pa.field(field.name, pa.timestamp(field.type.unit, "UTC") if zoned else field.type)


def _as_frame(table: "pa.Table") -> pl.DataFrame:
    frame = pl.from_arrow(table)
    return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()


def _of_text(path: Path, split: str, names: list[str], null: Sequence[str], *, packed: bool) -> Table:
    import pyarrow as pa  # noqa: PLC0415 - Parquet and Polars need it not
    from pyarrow import csv as arrow_csv  # noqa: PLC0415

    lines = _Lines(path, split, packed=packed)
    reading_errors = (pa.ArrowException, OSError, EOFError, csv.Error)
    options = arrow_csv.ConvertOptions(
        include_columns=names,
        column_types=dict.fromkeys(names, pa.string()),
        null_values=["", *null],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )

    def chunks() -> Iterator[tuple[int, pl.DataFrame]]:
        try:
            lines.check_quotes()  # one that is open would swallow all rows behind it
            with pa.OSFile(str(path)) as file:
                stream = pa.CompressedInputStream(file, "gzip") if packed else file
                reader = arrow_csv.open_csv(
                    stream,
                    read_options=arrow_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
                    parse_options=arrow_csv.ParseOptions(delimiter=split, newlines_in_values=True),
                    convert_options=options,
                )
                yield 0, pl.DataFrame(schema=dict.fromkeys(names, pl.String))
                for batch in reader:
                    yield file.tell(), _as_frame(pa.Table.from_batches([batch]))
        except UnicodeDecodeError as error:
            raise lines.not_utf_8() from error
        except reading_errors as error:
            hint = lines.uneven() or "give a line of names, text in UTF-8"
            raise _unreadable(path, error, hint) from error

    try:
        present = lines.names()
    except UnicodeDecodeError as error:
        raise lines.not_utf_8() from error
    except reading_errors as error:
        raise _unreadable(path, error, "give a line of names, text in UTF-8") from error
    _check_names(present, names)
    return Table(present, chunks, path.stat().st_size, is_text=True, place=lines.place)


class _Lines:
    """The lines of a text file, read again to find the line of a row, since parsing keeps no count."""

    def __init__(self, path: Path, split: str, *, packed: bool) -> None:
        self._path = path
        self._split = split
        self._packed = packed
        csv.field_size_limit(sys.maxsize)  # of all readers of this process: 131,072 characters otherwise

    def names(self) -> list[str]:
        """Return the fields of the first line."""
        return next((fields for _, fields in self._rows()), [])

    def place(self, row: int) -> str:
        """Return the place of a row in the file, by its number from 0 behind the line of names."""
        lines = (line for number, (line, _) in enumerate(self._rows()) if number == row + 1)
        return f"line {next(lines, row + 2)}"

    def check_quotes(self) -> None:
        """Check that each field in quotes ends, and with its quote.

        An open quote would swallow all rows behind it; two of them, those in between.

        Raises
        ------
        csv.Error
            If one does not.
        """
        with self._opened() as text:
            if not any('"' in line for line in text):
                return
        with self._opened() as text:
            reader, line = csv.reader(text, delimiter=self._split, strict=True), 1
            try:
                for _ in reader:
                    line = reader.line_num + 1
            except csv.Error as error:
                why = "a quote there is not closed, or text follows the one that closes"
                raise csv.Error(f"line {line}: {error}: {why}") from error

    def uneven(self) -> str:
        """Return a hint that names the first line with another number of fields; or empty text."""
        try:
            width = len(self.names())
            wrong = ((n, len(fields)) for n, fields in self._rows() if len(fields) != width)
            line, count = next(wrong, (0, 0))
        except (OSError, EOFError, UnicodeDecodeError, csv.Error):
            return ""
        return f"mend line {line}: it has {count} fields, the line of names {width}" if line else ""

    def not_utf_8(self) -> SchemaError:
        """Return the refusal that names the first field which is not UTF-8."""
        rows, where = self._rows("surrogateescape"), "its end"
        _, names = first = next(rows)
        for line, fields in chain([first], rows):
            wrong = ((place, field) for place, field in enumerate(fields) if not _is_utf_8(field))
            place, field = next(wrong, (0, ""))
            if field:
                named = fields is not names and place < len(names)
                column = f", column {names[place]!r}" if named else ""
                shown = field.encode(errors="surrogateescape").decode(errors="backslashreplace")
                where = f"line {line}{column}, '{shown[:_SHOWN]}'"
                break
        return SchemaError(
            f"{self._path} cannot be read: {where} is not UTF-8", hint="write the file as text in UTF-8"
        )

    def _rows(self, errors: str = "strict") -> Iterator[tuple[int, list[str]]]:
        """Yield each row's first line, from 1, and its fields; empty lines are skipped."""
        with self._opened(errors) as text:
            reader = csv.reader(text, delimiter=self._split)
            line = 1
            for fields in reader:
                if fields:
                    yield line, fields
                line = reader.line_num + 1

    def _opened(self, errors: str = "strict") -> TextIO:
        if self._packed:
            return gzip.open(self._path, "rt", encoding="utf-8-sig", errors=errors, newline="")
        return self._path.open(encoding="utf-8-sig", errors=errors, newline="")


def _is_utf_8(field: str) -> bool:
    """Return whether text that was read with escapes of what is not UTF-8 has none."""
    return field.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in field)


def _row(row: int) -> str:
    return f"row {row} (from 0)"


def _check_names(names: Sequence[str], columns: list[str]) -> None:
    if missing := [name for name in columns if name not in names]:
        raise SchemaError(
            f"the table has no column {few(missing)}; it has {few(names, 20)}",
            hint=_other_names(names),
        )
    if twice := [name for name in columns if names.count(name) > 1]:
        raise SchemaError(
            f"the table has several columns {few(twice)}", hint="leave one, or rename the others"
        )


def _other_names(names: Sequence[str]) -> str:
    """Return what may help where columns are missing: a name that holds several was not split."""
    if len(names) == 1 and "\t" in names[0]:
        return "say that tabs split the fields: end the file's name in .tsv"
    if len(names) == 1 and (found := [one for one in ";|," if one in names[0]]):
        return f"say what splits the fields: --delimiter {found[0]!r}, Columns(delimiter={found[0]!r})"
    return (
        "name the columns with --id, --served-at, --label and --known-at (Columns(...) in Python), and "
        'that of a feature with Feature(..., column="...")'
    )


def _unreadable(path: Path, error: BaseException, hint: str) -> SchemaError:
    first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return SchemaError(f"{path} cannot be read: {first}", hint=hint)
