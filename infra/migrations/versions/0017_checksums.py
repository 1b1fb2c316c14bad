"""Checksums of records, the entries of an inbox that were lost, and the seals of the archive's files."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    comment = "null for a row of before checksums"
    op.add_column("prediction", sa.Column("checksum", sa.BigInteger(), comment=comment))
    op.add_column("label", sa.Column("checksum", sa.BigInteger()))
    op.add_column("example", sa.Column("checksum", sa.BigInteger()))
    op.create_table(
        "lost_entry",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("inbox", sa.String(length=200), nullable=False, comment="the id in its file"),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False, comment="when it was passed over"),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "inbox", "position"),
    )
    op.create_table(
        "archive_file",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("table_name", sa.String(length=20), nullable=False),
        sa.Column("path", sa.String(length=200), nullable=False, comment="below the table's folder"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("checksum", sa.BigInteger(), nullable=False),
        sa.Column(
            "replaced_at_us",
            sa.BigInteger(),
            comment="when compaction replaced it; null while it is read",
        ),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "table_name", "path"),
    )
