"""What pipelines said, by hash, and which of it is in force since when."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.create_table(
        "declaration",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False, comment="of the content"),
        sa.Column("content", sa.Text(), nullable=False, comment="JSON, what the pipeline said"),
        sa.Column("since_us", sa.BigInteger(), nullable=False, comment="when it was first put in force"),
        sa.Column("by", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "number"),
    )
    op.create_index("declaration_by_hash", "declaration", ["pipeline_id", "hash"], unique=True)
    op.create_table(
        "declared",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("move", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "declaration",
            sa.BigInteger(),
            nullable=False,
            comment="its number; the newest move counts",
        ),
        sa.Column(
            "begins_line", sa.Boolean(), nullable=False, comment="the next update may begin a new line"
        ),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "move"),
    )
