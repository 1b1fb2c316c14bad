"""What records were recorded under, by number; each prediction bears it."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.create_table(
        "recorded_by",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "hash",
            sa.BigInteger(),
            nullable=False,
            comment="of the content; entries of the inbox bear it",
        ),
        sa.Column(
            "content", sa.Text(), nullable=False, comment="JSON, by which records are read and joined"
        ),
        sa.Column(
            "since_us",
            sa.BigInteger(),
            nullable=False,
            comment="when a record of it was first sequenced",
        ),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "number"),
    )
    op.create_index("recorded_by_hash", "recorded_by", ["pipeline_id", "hash"], unique=True)
    op.add_column(
        "prediction",
        sa.Column(
            "recorded_by", sa.Integer(), comment="the number of its declaration; null is the first"
        ),
    )
    _number_what_is_there()


def _number_what_is_there() -> None:
    """Let the records of before be of number 1: the declaration in force, with what it had dropped."""
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT id, declaration FROM pipeline")).all()
    for pipeline_id, text in rows:
        content = json.loads(text)
        content["features"] += content.pop("dropped", [])
        connection.execute(
            sa.text(
                "INSERT INTO recorded_by (pipeline_id, number, hash, content, since_us) "
                "VALUES (:id, 1, :hash, :content, 0)"
            ),
            {"id": pipeline_id, "hash": 0, "content": json.dumps(content)},
        )
