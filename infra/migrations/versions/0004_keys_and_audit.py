"""API keys, and who did what."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column(
            "sha256",
            sa.LargeBinary(),
            nullable=False,
            comment="of the whole key, which is kept nowhere",
        ),
        sa.Column("scopes", sa.String(length=200), nullable=False, comment="with commas between"),
        sa.Column("made_at_us", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.String(length=200), nullable=False),
        sa.Column("revoked_at_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_index(
        "api_key_by_name",
        "api_key",
        ["name"],
        unique=True,
        sqlite_where=sa.text("revoked_at_us IS NULL"),
        postgresql_where=sa.text("revoked_at_us IS NULL"),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("pipeline_id", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False, comment="JSON"),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("number"),
    )
