"""Materialise the tables of batch features: read a source, check it, and publish it to the service."""

import hashlib
import inspect
import sys
from datetime import datetime

import msgspec

from headwater.features.tables.materialisations import Materialisations
from headwater.features.tables.table_lookup import write_lookup
from headwater.features.tables.table_rows import conform, rows_of
from headwater.features.tables.table_sources import read_whole
from headwater.infra.store.open_storage import open_storage
from headwater.loop.binding import Bound
from headwater.spec.data.feature_table import FeatureTable, Materialised, due
from headwater.spec.data.source import QuerySource, name_of_source
from headwater.spec.errors import DeclarationError, NotFoundError, few

__all__ = ["TableState", "due_tables", "materialise", "table_of", "table_states"]


class TableState(msgspec.Struct, frozen=True, kw_only=True):
    """A table with its newest materialisation.

    Parameters
    ----------
    table, source, every, max_age
        As declared, the source in words.
    newest
        The newest materialisation; None before the first.
    age_s
        How long ago its source was read, in seconds.
    """

    table: str
    source: str
    every: str
    max_age: str | None
    newest: Materialised | None
    age_s: float | None


def materialise(bound: Bound, table: FeatureTable) -> Materialised:
    """Read a table's source, check it, and publish it; the service looks it up within a moment.

    If a step fails, the materialisation before stays.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    table
        One of the pipeline's.

    Raises
    ------
    ChangedError
        If the declaration differs from what is recorded.
    SchemaError, NonFiniteError, NotEnoughError
        If the source does not fit the declaration.
    ConflictError
        If another process has published a later reading meanwhile.
    IdentityError
        If the storage belongs to another log; the source is not read then.
    StorageError
        If the source or a store is away.
    """
    bound.log.agree()
    bound.log.archive.check()
    features, read_at = bound.pipeline.features_of(table.name), bound.clock.now()
    frame = conform(table, features, read_whole(table.source, open_storage(bound.settings)))
    materialisations = _materialisations(bound)
    with materialisations.drafting() as file:
        write_lookup(file, table.entity, features, rows_of(table, frame))
        return materialisations.put(table.name, file, read_at, frame.height, _origin(table))


def due_tables(bound: Bound) -> list[FeatureTable]:
    """List the tables that are due, by the pipeline's clock."""
    newest = _materialisations(bound).newest()
    read_at = {name: materialised.read_at for name, materialised in newest.items()}
    return due(bound.pipeline.tables, read_at, bound.clock.now())


def table_of(bound: Bound, name: str) -> FeatureTable:
    """Return the pipeline's table of a name.

    Raises
    ------
    NotFoundError
        If no table has that name.
    DeclarationError
        If the pipeline has no tables.
    """
    tables = {table.name: table for table in bound.pipeline.tables}
    if not tables:
        raise _no_tables(bound)
    if name not in tables:
        raise NotFoundError(
            f"pipeline {bound.pipeline.name!r} has no table {name!r}", hint=f"it has {few(tables)}"
        )
    return tables[name]


def table_states(bound: Bound) -> list[TableState]:
    """List the tables with their newest materialisations.

    Raises
    ------
    DeclarationError
        If the pipeline has no tables.
    """
    if not bound.pipeline.tables:
        raise _no_tables(bound)
    newest, now = _materialisations(bound).newest(), bound.clock.now()
    return [_state(table, newest.get(table.name), now) for table in bound.pipeline.tables]


def _materialisations(bound: Bound) -> Materialisations:
    return Materialisations(bound.pipeline.name, bound.log.pipeline_id, bound.database, bound.settings)


def _no_tables(bound: Bound) -> DeclarationError:
    return DeclarationError(
        f"pipeline {bound.pipeline.name!r} looks nothing up: it has no tables",
        hint="declare one: tables=(FeatureTable(...),)",
    )


def _state(table: FeatureTable, newest: Materialised | None, now: datetime) -> TableState:
    return TableState(
        table=table.name,
        source=name_of_source(table.source),
        every=table.every,
        max_age=table.max_age,
        newest=newest,
        age_s=None if newest is None else max(0.0, (now - newest.read_at).total_seconds()),
    )


def _origin(table: FeatureTable) -> str:
    """Name the source of values; for a function, with a hash of its module's text."""
    name = name_of_source(table.source)
    if not isinstance(table.source, QuerySource):
        return name
    code = inspect.getsource(sys.modules[table.source.query.__module__])
    return f"{name} of {hashlib.sha256(code.encode()).hexdigest()[:16]}"
