"""The flow that materialises the tables of batch features."""

from typing import Any

import msgspec
from prefect import flow

from headwater.tasks.materialise import find_due_tables, materialise_tables

__all__ = ["materialise"]


@flow(name="materialise")
def materialise(pipeline: str, tables: list[str] | None = None) -> list[dict[str, Any]]:
    """Read sources, check them, and publish them to the service.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.
    tables
        Names of the tables; by default those that are due.

    Returns
    -------
    list of dict
        The fields of each :class:`~headwater.features.tables.materialisations.Materialised`.
    """
    names = find_due_tables(pipeline) if tables is None else tables
    result: list[dict[str, Any]] = msgspec.to_builtins(materialise_tables(pipeline, names))
    return result
