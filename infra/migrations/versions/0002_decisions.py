"""Decisions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "decision",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("fired", sa.Boolean(), nullable=False),
        sa.Column(
            "record", sa.LargeBinary(), nullable=False, comment="JSON, the decision as it was made"
        ),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="how often a run was asked for"),
        sa.Column("dispatched_at_us", sa.BigInteger(), nullable=True),
        sa.Column("claimed_by", sa.String(length=200), nullable=True),
        sa.Column(
            "work", sa.LargeBinary(), nullable=True, comment="JSON, what the first claim set out to do"
        ),
        sa.Column("ended_at_us", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.LargeBinary(), nullable=True, comment="JSON"),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "id"),
    )
    op.create_index("decision_by_time", "decision", ["pipeline_id", "at_us"], unique=False)
