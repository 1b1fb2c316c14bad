"""Commit points: named moments at which tests kill the process.

Each store calls :func:`reached` just before and just after it commits. With ``HEADWATER_KILL_AT`` set
to ``name`` or ``name:n`` the process kills itself, as a power cut would, the *n*-th time it comes by.
"""

import os
import signal

__all__ = [
    "ADOPT_POINTS",
    "BATCH_POINTS",
    "COMMIT_POINTS",
    "DELETE_POINTS",
    "IDENTITY_POINTS",
    "reached",
]

COMMIT_POINTS = (
    "record.before_sync",
    "record.after_sync",
    "label.before_sync",
    "label.after_sync",
    "sequence.before_commit",
    "sequence.after_commit",
    "collect.before_append",
    "collect.between_tables",
    "collect.after_append",
    "decide.before_store",
    "decide.after_store",
    "claim.after_commit",
    "train.before_learn",
    "train.after_learn",
    "register.before_upload",
    "register.after_upload",
    "register.after_version",
    "promote.before_swap",
    "promote.after_swap",
    "promote.after_mirror",
    "end.before_commit",
    "end.after_commit",
)
"""Every commit point, in the order in which an example's life passes them."""

IDENTITY_POINTS = (
    "begin.after_register",
    "begin.after_belonging",
    "collect.before_claim",
    "collect.after_claim",
)
"""Those of a log's first moments: its id goes from the database into inbox and storage."""

ADOPT_POINTS = (
    "adopt.after_cut",
    "adopt.before_commit",
    "adopt.after_commit",
    "adopt.after_version",
)
"""Those of an adoption whose database is lost, before the points of a log's first moments."""

DELETE_POINTS = (
    "delete.after_mark",
    "delete.after_tables",
    "delete.after_states",
    "delete.after_records",
    "delete.after_rows",
    "delete.after_inbox",
)
"""Those of the deletion of a pipeline."""

BATCH_POINTS = (
    "batch.after_begin",
    "batch.after_part",
    "batch.before_stage",
    "batch.after_stage",
    "batch.between_records",
    "batch.before_publish",
    "batch.after_publish",
)
"""Those of a batch prediction, which has no example's life."""

_name, _, _count = os.environ.get("HEADWATER_KILL_AT", "").partition(":")
_left = int(_count or 1)


def reached(point: str) -> None:
    """Pass a commit point; kill the process if a test asked for it."""
    global _left  # noqa: PLW0603 - a process-wide countdown
    if point == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
