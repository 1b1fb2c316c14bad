"""Open deadlines as rows, each at a time of its own, in place of the first position that is not due."""

import json
from datetime import timedelta

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def upgrade() -> None:
    op.create_table(
        "deadline",
        sa.Column("pipeline_id", sa.Integer(), nullable=False),
        sa.Column("due_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"]),
        sa.PrimaryKeyConstraint("pipeline_id", "due_us", "position"),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    declared = sa.text("SELECT id, declaration FROM pipeline ORDER BY id")
    for pipeline_id, declaration in connection.execute(declared).all():
        rule = json.loads(declaration)["label"]
        if rule["maturity"] == "window" or rule["timeout"] is not None:
            values = {"pipeline_id": pipeline_id, "wait_us": _microseconds(rule["wait"])}
            connection.execute(_OPEN, values)
    op.drop_column("sequencer", "next_deadline")
    op.add_column(
        "prediction",
        sa.Column(
            "due_us",
            sa.BigInteger(),
            nullable=True,
            comment="when its truth is due, if its rule's due names it",
        ),
    )


# What was due before the horizon falls at the horizon: examples' times never fall.
_OPEN = sa.text(
    "INSERT INTO deadline (pipeline_id, due_us, position) "
    "SELECT p.pipeline_id, "
    "CASE WHEN p.effective_at_us + :wait_us < s.horizon_us THEN s.horizon_us "
    "ELSE p.effective_at_us + :wait_us END, p.position "
    "FROM prediction p JOIN sequencer s ON s.pipeline_id = p.pipeline_id "
    "WHERE p.pipeline_id = :pipeline_id AND p.position >= s.next_deadline"
)


def _microseconds(wait: str) -> int:
    return timedelta(**{_UNITS[wait[-1]]: int(wait[:-1])}) // timedelta(microseconds=1)
