"""The flow that carries out a decision."""

from typing import Any

import msgspec
from prefect import flow

from headwater.flows.events import tell_promoted
from headwater.tasks.collect import collect_examples
from headwater.tasks.update import carry_out_decision, record_version

__all__ = ["update"]


@flow(name="update")
def update(pipeline: str, decision: str | None = None) -> dict[str, Any] | None:
    """Claim a decision, collect, learn, pass the gate, publish, promote, and say so.

    Whatever is killed, a decision ends in one version: run it again as often as you like.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.
    decision
        Its id; the oldest that fired and has not ended where not given.

    Returns
    -------
    dict or None
        The fields of :class:`~headwater.loop.training.update.UpdateResult`; None where there is nothing
        to do.
    """
    collect_examples(pipeline)
    updated = carry_out_decision(pipeline, decision)
    if updated is None:
        return None
    record_version(updated)
    tell_promoted(updated)
    ended: dict[str, Any] = msgspec.to_builtins(updated)
    return ended
