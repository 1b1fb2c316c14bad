"""The tables that only the sequencer uses, in the operational database."""

from sqlalchemy import Table

from headwater.infra.store.schema.tables import metadata, of_pipeline, place

__all__ = ["deadline"]

deadline = Table(
    "deadline",
    metadata,
    of_pipeline(),
    place("due_us"),
    place("position"),
    sqlite_with_rowid=False,
)
"""Open deadlines: predictions to which something happens when their truth is due."""
