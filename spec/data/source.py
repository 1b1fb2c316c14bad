"""Sources of tables: a Delta table, a Parquet file, or a function that returns dataframes."""

import inspect
from collections.abc import Callable

import msgspec

from headwater.spec.errors import DeclarationError

__all__ = ["DeltaSource", "ParquetSource", "QuerySource", "Source", "check_source", "name_of_source"]


class DeltaSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="delta"):
    """A Delta Lake table, read in its newest version.

    Parameters
    ----------
    address
        A folder, or ``s3://bucket/prefix``.
    """

    address: str

    def __post_init__(self) -> None:
        _check_address(self.address, "DeltaSource", "lake/customers")


class ParquetSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="parquet"):
    """A Parquet file, or several by a pattern.

    Parameters
    ----------
    address
        A path or ``s3://bucket/key``; ``*`` stands for any part of a name.
    """

    address: str

    def __post_init__(self) -> None:
        _check_address(self.address, "ParquetSource", "customers.parquet")


class QuerySource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="query"):
    """The dataframes that a function returns when the source is read.

    Parameters
    ----------
    query
        A named function of no arguments at the top of a module. It gives a dataframe of Polars, lazy or
        not, or of pandas; or an iterator of them, so that a table need not fit in memory.
    """

    query: Callable[[], object]

    def __post_init__(self) -> None:
        name = getattr(self.query, "__qualname__", "")
        if not inspect.isfunction(self.query) or not name.isidentifier() or name == "<lambda>":
            raise DeclarationError(
                f"query={self.query!r} is not a named function at the top of a module",
                hint="write def customers(): return pl.read_database(...) and QuerySource(customers)",
            )
        if inspect.signature(self.query).parameters:
            raise DeclarationError(
                f"query={name} takes arguments", hint="read its inputs from the environment"
            )


Source = DeltaSource | ParquetSource | QuerySource


def check_source(source: object, what: str) -> None:
    """Refuse anything but a source.

    Raises
    ------
    DeclarationError
        With what to write instead; `what` says whose it is.
    """
    if not isinstance(source, Source):
        raise DeclarationError(
            f"source={source!r}{what} is no table",
            hint='write ParquetSource("customers.parquet"), DeltaSource("lake/customers") '
            "or QuerySource(customers)",
        )


def name_of_source(source: Source) -> str:
    """Return a source in words: its address, or ``module:function``.

    >>> name_of_source(DeltaSource("lake/customers"))
    'lake/customers'
    """
    if isinstance(source, QuerySource):
        return f"{source.query.__module__}:{source.query.__name__}"
    return source.address


def _check_address(address: object, name: str, example: str) -> None:
    if not isinstance(address, str) or not address.strip():
        raise DeclarationError(
            f"{name}({address!r}) names no table", hint=f'write {name}("{example}"), say'
        )
