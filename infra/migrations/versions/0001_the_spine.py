"""The spine."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "lease",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=200), nullable=True),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "pipeline",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("features", sa.Text(), nullable=False, comment="JSON, the newest schema"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "champion",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=200), nullable=False),
        sa.Column(
            "mirrored_epoch", sa.BigInteger(), nullable=False, comment="the aliases show this epoch"
        ),
        sa.ForeignKeyConstraint(
            ["pipeline_id"],
            ["pipeline.id"],
        ),
        sa.PrimaryKeyConstraint("pipeline_id"),
    )
    op.create_table(
        "example",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("prediction_position", sa.BigInteger(), nullable=False),
        sa.Column("label_position", sa.BigInteger(), nullable=False),
        sa.Column("emitted_at_us", sa.BigInteger(), nullable=False),
        sa.Column("supersedes", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["pipeline_id"],
            ["pipeline.id"],
        ),
        sa.PrimaryKeyConstraint("pipeline_id", "offset"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "example_by_prediction", "example", ["pipeline_id", "prediction_position"], unique=False
    )
    op.create_table(
        "inbox_position",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("inbox", sa.String(length=200), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["pipeline_id"],
            ["pipeline.id"],
        ),
        sa.PrimaryKeyConstraint("pipeline_id", "inbox"),
    )
    op.create_table(
        "label",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "prediction_position",
            sa.BigInteger(),
            nullable=True,
            comment="null where the prediction had not come",
        ),
        sa.Column(
            "prediction_id",
            sa.String(length=200),
            nullable=True,
            comment="only where the prediction had not come",
        ),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("effective_at_us", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["pipeline_id"],
            ["pipeline.id"],
        ),
        sa.PrimaryKeyConstraint("pipeline_id", "position"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "label_by_prediction",
        "label",
        ["pipeline_id", "prediction_position", "revision"],
        unique=True,
    )
    op.create_index(
        "label_parked",
        "label",
        ["pipeline_id", "prediction_id", "revision"],
        unique=True,
        sqlite_where=sa.text("prediction_id IS NOT NULL"),
        postgresql_where=sa.text("prediction_id IS NOT NULL"),
    )
    op.create_table(
        "prediction",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("effective_at_us", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["pipeline_id"],
            ["pipeline.id"],
        ),
        sa.PrimaryKeyConstraint("pipeline_id", "position"),
        sqlite_with_rowid=False,
    )
    op.create_index("prediction_by_id", "prediction", ["pipeline_id", "id"], unique=True)
    op.create_table(
        "quarantine",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("stop", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["pipeline_id"],
            ["pipeline.id"],
        ),
        sa.PrimaryKeyConstraint("pipeline_id", "start", "stop"),
    )
    op.create_table(
        "reign",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("previous", sa.String(length=40), nullable=True),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["pipeline_id"],
            ["pipeline.id"],
        ),
        sa.PrimaryKeyConstraint("pipeline_id", "epoch"),
    )
    op.create_table(
        "sequencer",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("next_position", sa.BigInteger(), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.Column(
            "next_deadline", sa.BigInteger(), nullable=False, comment="first position not yet due"
        ),
        sa.Column(
            "horizon_us", sa.BigInteger(), nullable=False, comment="all before it has been sequenced"
        ),
        sa.Column(
            "parked", sa.BigInteger(), nullable=False, comment="labels whose prediction has not come"
        ),
        sa.ForeignKeyConstraint(
            ["pipeline_id"],
            ["pipeline.id"],
        ),
        sa.PrimaryKeyConstraint("pipeline_id"),
    )
