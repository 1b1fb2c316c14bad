"""Runs of batch prediction, and how many of their answers were read."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "batch_run",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "id",
            sa.String(length=40),
            nullable=False,
            comment="names its files, and is in its predictions' ids",
        ),
        sa.Column("state", sa.String(length=20), nullable=False, comment="begun, staged or published"),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column(
            "at_us", sa.BigInteger(), nullable=False, comment="when its predictions count as served"
        ),
        sa.Column("by", sa.String(length=200), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column(
            "sha256",
            sa.LargeBinary(),
            nullable=True,
            comment="of the table that finds an answer; null until it is staged",
        ),
        sa.Column("published_at_us", sa.BigInteger(), nullable=True),
        sa.Column(
            "read", sa.BigInteger(), nullable=False, comment="predictions that somebody has looked up"
        ),
        sa.Column("kept", sa.Boolean(), nullable=False, comment="its files are in storage"),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "number"),
    )
