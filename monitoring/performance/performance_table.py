"""The table ``performance`` in storage: a Delta table, written and read by rows of windows."""

from typing import TYPE_CHECKING

import polars as pl

from headwater.infra.store.identity import Claim, Identity
from headwater.infra.store.storage import Storage
from headwater.monitoring.performance.performance_row import PERFORMANCE_SCHEMA
from headwater.spec.errors import TableError

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["open_performance", "read_performance", "write_performance"]

_ORDER = ("window_start", "cumulative", "version", "role", "slice", "slice_value", "estimated")


def write_performance(storage: Storage, identity: Identity, frame: pl.DataFrame) -> None:
    """Write measured rows to the table, in place of the rows that they correct.

    The call replaces the rows of windows that begin with the frame's oldest or later, and the cumulative
    rows of its versions. Other rows stay.

    Parameters
    ----------
    storage
        The root.
    identity
        The log: whose tables, and in which folder.
    frame
        From :func:`~headwater.monitoring.performance.window_performance.measure_performance`; if it is
        empty, nothing is written.

    Raises
    ------
    IdentityError
        If the table, or the pipeline's name on the storage, belongs to another log.
    TableError
        If the table cannot be written.
    """
    from deltalake import write_deltalake  # noqa: PLC0415
    from deltalake.exceptions import DeltaError  # noqa: PLC0415

    if frame.is_empty():
        return
    storage.prepare()
    address = _address(storage, identity)
    exists = not read_performance(storage, identity).is_empty()
    Claim(storage, identity).take()
    try:
        write_deltalake(
            address,
            frame,
            mode="overwrite",
            predicate=_corrected(frame) if exists else None,
            description=identity.description,
            storage_options=storage.options,
        )
    except (DeltaError, OSError) as error:
        raise _refused(address, error) from error


def read_performance(storage: Storage, identity: Identity) -> pl.DataFrame:
    """Read the table, by window; the frame has no rows if there is no table.

    Returns
    -------
    polars.DataFrame
        Rows of :class:`~headwater.monitoring.performance.performance_row.PerformanceRow`.

    Raises
    ------
    IdentityError
        If the table belongs to another log.
    TableError
        If the table cannot be read.
    """
    from deltalake.exceptions import DeltaError  # noqa: PLC0415
    from polars.exceptions import PolarsError  # noqa: PLC0415

    table = open_performance(storage, identity)
    if table is None:
        return pl.DataFrame(schema=PERFORMANCE_SCHEMA)
    try:
        frame = pl.read_delta(table)
    except (DeltaError, PolarsError, OSError) as error:
        raise _refused(_address(storage, identity), error) from error
    return frame.select(list(PERFORMANCE_SCHEMA)).sort(*_ORDER, maintain_order=True)


def open_performance(storage: Storage, identity: Identity) -> "DeltaTable | None":
    """Open the table, without reading rows; return None if there is none.

    Raises
    ------
    IdentityError, TableError
        As :func:`read_performance` does.
    """
    from deltalake import DeltaTable  # noqa: PLC0415
    from deltalake.exceptions import DeltaError, TableNotFoundError  # noqa: PLC0415

    address = _address(storage, identity)
    try:
        table = DeltaTable(address, storage_options=storage.options)
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise _refused(address, error) from error
    identity.check_table("performance", address, table.metadata().description)
    return table


def _address(storage: Storage, identity: Identity) -> str:
    return storage.address("tables", identity.pipeline, "performance")


def _corrected(frame: pl.DataFrame) -> str:
    """Write the condition on the rows that a frame takes the place of."""
    moment = pl.col("window_start").min().dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    oldest = frame.select(moment).item()
    versions = ", ".join(f"'{_quoted(version)}'" for version in frame["version"].unique().sort())
    return f"window_start >= '{oldest}' OR (cumulative = true AND version IN ({versions}))"


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _refused(address: str, error: Exception) -> TableError:
    first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return TableError(
        f"the table at {address} refuses: {first}",
        hint="delete its folder: headwater measures it again from the log, window by window",
    )
