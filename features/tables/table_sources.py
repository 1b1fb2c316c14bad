"""Sources of tables, opened lazily; only a query returns its data at once."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pandas as pd
import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from headwater.features.values.column_values import from_pandas
from headwater.infra.store.storage import Storage
from headwater.spec.data.source import DeltaSource, ParquetSource, QuerySource, Source, name_of_source
from headwater.spec.errors import HeadwaterError, NotFoundError, SchemaError, StorageError

__all__ = ["opened", "read_whole", "reading"]


def read_whole(source: Source, storage: Storage) -> pl.DataFrame:
    """Read a source, whole.

    Parameters
    ----------
    source
        Where it is.
    storage
        Knows how S3 is reached.

    Raises
    ------
    NotFoundError
        If the table does not exist.
    SchemaError
        If a query gives no dataframe.
    StorageError
        If it cannot be read.
    """
    with reading(source):
        return pl.concat([frame.collect() for frame in opened(source, storage)])


def opened(source: Source, storage: Storage) -> Iterable[pl.LazyFrame]:
    """Open a source, within :func:`reading`: one table, or as many as its query yields.

    Parameters
    ----------
    source, storage
        As for :func:`read_whole`.

    Raises
    ------
    SchemaError
        If a query gives no dataframe.
    """
    match source:
        case DeltaSource(address):
            version = DeltaTable(address, storage_options=storage.options_for(address)).version()
            options = storage.reader_options_for(address)
            yield pl.scan_delta(address, version=version, storage_options=options)
        case ParquetSource(address):
            yield pl.scan_parquet(address, storage_options=storage.reader_options_for(address))
        case QuerySource(query):
            result = query()
            for frame in result if isinstance(result, Iterator) else (result,):
                yield _lazy(frame, query.__name__)


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """Name the source that cannot be read; of a query's own errors, only those of files and networks.

    Raises
    ------
    NotFoundError
        If the table does not exist.
    StorageError
        If it cannot be read.
    """
    what = name_of_source(source)
    try:
        yield
    except HeadwaterError:
        raise
    except (TableNotFoundError, FileNotFoundError) as error:
        raise NotFoundError(
            f"there is no table at {what}", hint="check the address that the pipeline declares"
        ) from error
    except (pl.exceptions.PolarsError, DeltaError, OSError) as error:
        first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise StorageError(
            f"{what} cannot be read: {first}", hint="check that it is there, and is whole"
        ) from error


def _lazy(result: object, name: str) -> pl.LazyFrame:
    if isinstance(result, pl.LazyFrame):
        return result
    if isinstance(result, pd.DataFrame):
        result = pl.DataFrame([from_pandas(result[column]).alias(str(column)) for column in result])
    if not isinstance(result, pl.DataFrame):
        raise SchemaError(
            f"query {name} returns {type(result).__name__}, not a dataframe",
            hint="return a dataframe of Polars or pandas, or an iterator of them",
        )
    return result.lazy()
