"""The tables of what pipelines said, in the operational database."""

from sqlalchemy import BigInteger, Boolean, Column, Index, String, Table, Text

from headwater.infra.store.schema.tables import metadata, of_pipeline, place

__all__ = ["declaration", "declared", "recorded_by"]

declaration = Table(
    "declaration",
    metadata,
    of_pipeline(),
    place("number"),
    Column("hash", String(64), nullable=False, comment="of the content"),
    Column("content", Text, nullable=False, comment="JSON, what the pipeline said"),
    Column("since_us", BigInteger, nullable=False, comment="when it was first put in force"),
    Column("by", String(200), nullable=False),
    Index("declaration_by_hash", "pipeline_id", "hash", unique=True),
)

declared = Table(
    "declared",
    metadata,
    of_pipeline(),
    place("move"),
    Column("declaration", BigInteger, nullable=False, comment="its number; the newest move counts"),
    Column("begins_line", Boolean, nullable=False, comment="the next update may begin a new line"),
    Column("since_us", BigInteger, nullable=False),
    Column("by", String(200), nullable=False),
)

recorded_by = Table(
    "recorded_by",
    metadata,
    of_pipeline(),
    place("number"),
    Column("hash", BigInteger, nullable=False, comment="of the content; entries of the inbox bear it"),
    Column("content", Text, nullable=False, comment="JSON, by which records are read and joined"),
    Column("since_us", BigInteger, nullable=False, comment="when a record of it was first sequenced"),
    Index("recorded_by_hash", "pipeline_id", "hash", unique=True),
)
