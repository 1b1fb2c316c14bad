"""The names of headwater's own columns, which no feature may bear.

Features are a struct in the tables; ``unnest("features")``, ``headwater examples`` and what is made of
them put each beside the other columns.
"""

__all__ = ["EXAMPLE", "HISTORY", "LABEL", "PREDICTION", "RECORDED", "RESERVED"]

PREDICTION = (
    "prediction_id",
    "served_at",
    "version",
    "role",
    "propensity",
    "entity",
    "output",
    "features",
    "ages_s",
)
"""Columns of a prediction."""

LABEL = ("label", "source", "known_at")
"""Columns of a label in an example."""

EXAMPLE = ("offset", "emitted_at", "supersedes", "revision", "late", "recorded_by", *LABEL, *PREDICTION)
"""Columns of an example."""

RECORDED = (
    "position",
    "recorded_at",
    "received_at",
    "key",
    "held",
    "by",
    "on_receipt",
    "instead_of",
    "due_at",
)
"""Columns of the tables of predictions and labels beside those."""

HISTORY = ("id", "served_at", "label", "known_at")
"""Columns of a table of what happened, as an import or a replay takes it."""

RESERVED = frozenset({*EXAMPLE, *RECORDED, *HISTORY})
"""What no feature may be called; in lower case, for Delta Lake does not tell Label from label."""
