"""Opening of SQLite files, for several processes at once, with every commit synced."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from time import monotonic, sleep

__all__ = ["BUSY_S", "prepare", "together"]

BUSY_S = 60
_TOGETHER = 50
_PAUSE_S = 0.02

# Without an adapter, Python's module looks for two methods that these types lack, and raises and drops
# an error for each value that it binds. These return the value at the least cost.
sqlite3.register_adapter(bytes, bytes.__bytes__)
sqlite3.register_adapter(bool, int)
_nothing: Callable[[None], None] = dict[None, None]().get
sqlite3.register_adapter(type(None), _nothing)


def prepare(connection: sqlite3.Connection) -> None:
    """Turn a new connection to write-ahead logging, so that one writes while others read.

    SQLite's own busy timeout does not cover the change of journal: where two processes open a new file
    at once, one of them is refused outright, so this tries again for as long as that timeout.

    Parameters
    ----------
    connection
        In autocommit mode, outside a transaction.

    Raises
    ------
    sqlite3.OperationalError
        If the file stays locked for :data:`BUSY_S` seconds, or is no database.
    """
    connection.execute("PRAGMA page_size = 16384")  # of a new file: records are long
    until = monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > until:
                raise
            sleep(_PAUSE_S)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")  # 64 MB: fewer pages are copied twice
    connection.execute("PRAGMA cache_size = -32000")  # 32 MB: no page of a transaction is spilled


def together(
    insert: str, row: str, rows: Sequence[tuple[object, ...]], end: str = ""
) -> Iterator[tuple[str, list[tuple[object, ...]]]]:
    """Put many rows into each statement, which halves the cost of an insert.

    Parameters
    ----------
    insert, row, end
        A statement's beginning up to ``VALUES``, the placeholders of one row, and what follows.
    rows
        Values, in the order of the placeholders.

    Yields
    ------
    statement : str
        With placeholders for up to fifty rows.
    values : list of tuple
        As ``executemany`` takes them.
    """
    whole = len(rows) - len(rows) % _TOGETHER
    for some, size in ((rows[:whole], _TOGETHER), (rows[whole:], len(rows) - whole)):
        if some:
            places = ", ".join([row] * size)
            yield (
                f"{insert} {places} {end}",
                [tuple(chain.from_iterable(some[i : i + size])) for i in range(0, len(some), size)],
            )
