"""Which scopes a key closes; those made before close all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column(
        "api_key",
        sa.Column(
            "closes",
            sa.String(length=200),
            nullable=False,
            server_default="predict,label,operate,read",
            comment="the scopes for which requests need a key since, with commas between",
        ),
    )
