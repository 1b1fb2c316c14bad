"""The tables of the operational database."""

from headwater.infra.store.schema import declaration_tables, queue_tables, sequencing_tables, tables

__all__ = ["declaration_tables", "every_table", "queue_tables", "sequencing_tables", "tables"]

every_table = tables.metadata
"""Every table of the database: the modules beside this one, which add them, are imported with it."""
