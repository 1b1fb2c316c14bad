"""The flow of the stateless update."""

from typing import Any

import msgspec
from prefect import flow

from headwater.tasks.collect import collect_examples
from headwater.tasks.update import record_version, update_model

__all__ = ["retrain"]


@flow(name="retrain")
def retrain(pipeline: str) -> dict[str, Any]:
    """Collect, then train from scratch.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.

    Returns
    -------
    dict
        The fields of :class:`~headwater.loop.training.update.UpdateResult`.
    """
    collect_examples(pipeline)
    updated = update_model(pipeline, from_scratch=True)
    record_version(updated)
    ended: dict[str, Any] = msgspec.to_builtins(updated)
    return ended
