"""Questions to people, their claims and their answers."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "queue",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column(
            "next_position", sa.BigInteger(), nullable=False, comment="all before it was looked at"
        ),
        sa.Column(
            "dealt_random",
            sa.BigInteger(),
            nullable=False,
            comment="random questions anybody has seen",
        ),
        sa.Column("dealt", sa.BigInteger(), nullable=False, comment="questions anybody has seen"),
        sa.Column(
            "labelled", sa.BigInteger(), nullable=False, comment="questions that a label overtook"
        ),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id"),
    )
    op.create_table(
        "question",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("prediction_id", sa.String(length=200), nullable=False),
        sa.Column("why", sa.String(length=20), nullable=False),
        sa.Column("priority", sa.Float(), nullable=False),
        sa.Column("people", sa.Integer(), nullable=False, comment="how many were meant to answer"),
        sa.Column("wanted", sa.Integer(), nullable=False, comment="how many are, by what was answered"),
        sa.Column("given", sa.Integer(), nullable=False, comment="how many have answered"),
        sa.Column("seen", sa.Boolean(), nullable=False, comment="somebody has claimed it once"),
        sa.Column("closed", sa.String(length=20), nullable=True, comment="null while it is open"),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "position"),
        sqlite_with_rowid=False,
    )
    op.create_index("question_by_prediction", "question", ["pipeline_id", "prediction_id"], unique=True)
    op.create_index(
        "question_by_priority",
        "question",
        ["pipeline_id", "closed", "why", "priority"],
        unique=False,
    )
    op.create_table(
        "claim",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("person", sa.String(length=100), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "position", "person"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "answer",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("person", sa.String(length=100), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "turn",
            sa.Integer(),
            nullable=True,
            comment="place among those who answered; null where skipped",
        ),
        sa.Column("value", sa.LargeBinary(), nullable=True, comment="JSON; null where skipped"),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "position", "person"),
        sqlite_with_rowid=False,
    )
