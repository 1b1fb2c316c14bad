"""What a pipeline declares of its records, in the place of its features."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute("ALTER TABLE pipeline RENAME COLUMN features TO declaration")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("COMMENT ON COLUMN pipeline.declaration IS 'JSON, the one in force'")
