"""The identity of a log; inboxes are known by the id in their file."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "log",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column(
            "uuid", sa.String(length=36), nullable=False, comment="what all stores of the log bear"
        ),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id"),
        sa.UniqueConstraint("uuid"),
    )
    with op.batch_alter_table("inbox_position") as batch:
        batch.alter_column("inbox", existing_type=sa.String(length=200), comment="the id in its file")
