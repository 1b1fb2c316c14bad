"""The flow that gives examples their offsets and archives them."""

from typing import Any

import msgspec
from prefect import flow

from headwater.flows.stack.silent_runs import close_silent_runs
from headwater.tasks.collect import collect_examples

__all__ = ["collect"]


@flow(name="collect")
def collect(pipeline: str) -> dict[str, Any]:
    """Collect the records that are due, and close runs that fell silent.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.

    Returns
    -------
    dict
        The fields of :class:`~headwater.loop.collect.CollectResult`.
    """
    result: dict[str, Any] = msgspec.to_builtins(collect_examples(pipeline))
    close_silent_runs(pipeline)
    return result
