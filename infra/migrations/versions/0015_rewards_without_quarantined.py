"""How many ranges of the quarantine a bandit's rewards leave out."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    comment = "how many ranges of the quarantine its rewards leave out"
    with op.batch_alter_table("bandit") as batch:
        batch.add_column(
            sa.Column("left_out", sa.BigInteger(), nullable=False, server_default="0", comment=comment)
        )
    with op.batch_alter_table("bandit") as batch:
        batch.alter_column("left_out", existing_type=sa.BigInteger(), server_default=None)
