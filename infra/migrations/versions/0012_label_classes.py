"""Classes that were not declared when they came, and labels that are held back for them."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "label_class",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False, comment="SHA-256 of the name"),
        sa.Column(
            "name", sa.Text(), nullable=False, comment="a class that was not declared when it came"
        ),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="of its first label"),
        sa.Column("appeared_at_us", sa.BigInteger(), nullable=False),
        sa.Column("announced", sa.Boolean(), nullable=False, comment="whether its event was emitted"),
        sa.Column("becomes", sa.Text(), comment="the class that it is; null until a person named it"),
        sa.Column(
            "named_from",
            sa.BigInteger(),
            comment="the position from which it is named; null before",
        ),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "digest"),
    )
    op.create_index(
        "label_class_named",
        "label_class",
        ["pipeline_id", "position"],
        sqlite_where=sa.text("becomes IS NOT NULL AND named_from IS NULL"),
        postgresql_where=sa.text("becomes IS NOT NULL AND named_from IS NULL"),
    )
    op.add_column(
        "label",
        sa.Column(
            "held_class",
            sa.String(length=64),
            comment="digest of its class, if it is held back for that",
        ),
    )
    op.create_index(
        "label_held",
        "label",
        ["pipeline_id", "held_class", "position"],
        sqlite_where=sa.text("held_class IS NOT NULL"),
        postgresql_where=sa.text("held_class IS NOT NULL"),
    )
