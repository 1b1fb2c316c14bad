"""Pauses of learning each label."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "pause",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False, comment="false: it goes on from here"),
        sa.Column(
            "offset", sa.BigInteger(), nullable=False, comment="the first one that is not learned"
        ),
        sa.Column(
            "epoch", sa.BigInteger(), nullable=False, comment="the reign that learned; 0 for none"
        ),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "number"),
    )
