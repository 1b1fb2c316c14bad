"""Equal questions, the classes that labels had, and the scale of a bandit's error."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column(
        "question",
        sa.Column(
            "shown",
            sa.String(length=32),
            server_default=sa.text("''"),
            nullable=False,
            comment="hash of its features and entity keys",
        ),
    )
    op.create_index("question_by_shown", "question", ["pipeline_id", "shown"])
    op.create_table(
        "equal_prediction",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("prediction_id", sa.String(length=200), nullable=False),
        sa.Column("question", sa.BigInteger(), nullable=False, comment="position of its question"),
        sa.Column("due", sa.Boolean(), nullable=False, comment="it lacks labels that people gave"),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "position"),
        sqlite_with_rowid=False,
    )
    op.create_index("equal_prediction_by_question", "equal_prediction", ["pipeline_id", "question"])
    op.create_index(
        "equal_prediction_due",
        "equal_prediction",
        ["pipeline_id", "position"],
        sqlite_where=sa.text("due"),
        postgresql_where=sa.text("due"),
    )
    op.create_table(
        "seen_class",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False, comment="of the name"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "digest"),
        sqlite_with_rowid=False,
    )
    op.add_column("bandit", sa.Column("scale", sa.Float(), comment="null where the reward has none"))
