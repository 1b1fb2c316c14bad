"""The flow that watches a pipeline and decides."""

from typing import Any

import msgspec
from prefect import flow

from headwater.flows.dispatch import dispatch_lost
from headwater.flows.events import tell_decided
from headwater.flows.stack.silent_runs import close_silent_runs
from headwater.tasks.collect import collect_examples
from headwater.tasks.decide import make_decision
from headwater.tasks.shadows import promote_best_shadow

__all__ = ["monitor"]


@flow(name="monitor")
def monitor(pipeline: str) -> dict[str, Any]:
    """Collect, promote a better shadow, decide, emit events, and request lost runs again.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.

    Returns
    -------
    dict
        The fields of the :class:`~headwater.spec.updating.decision.Decision`.
    """
    collect_examples(pipeline)
    promote_best_shadow(pipeline)
    decision = make_decision(pipeline)
    tell_decided(decision)
    dispatch_lost(pipeline)
    close_silent_runs(pipeline)
    result: dict[str, Any] = msgspec.to_builtins(decision)
    return result
