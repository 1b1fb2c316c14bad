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
    """Collect, claim a decision, learn, pass the gate, publish, promote, and emit an event.

    Whatever process is killed, a decision ends in one version: the flow may run again as often as you
    like.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.
    decision
        Its id; by default the oldest decision that fired and has not ended.

    Returns
    -------
    dict or None
        The fields of :class:`~headwater.loop.training.update.UpdateResult`; None if there is
        nothing to do.
    """
    collect_examples(pipeline)
    updated = carry_out_decision(pipeline, decision)
    if updated is None:
        return None
    record_version(updated)
    tell_promoted(updated)
    result: dict[str, Any] = msgspec.to_builtins(updated)
    return result
