"""How many labels were dropped because their prediction came too late."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    comment = "labels whose prediction came too late"
    with op.batch_alter_table("sequencer") as batch:
        batch.add_column(
            sa.Column("expired", sa.BigInteger(), nullable=False, server_default="0", comment=comment)
        )
    with op.batch_alter_table("sequencer") as batch:
        batch.alter_column("expired", existing_type=sa.BigInteger(), server_default=None)
