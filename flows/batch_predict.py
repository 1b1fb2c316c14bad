"""The flow that scores a table with the champion."""

from typing import Any

import msgspec
from prefect import flow

from headwater.tasks.batch_predict import predict_batch

__all__ = ["batch_predict"]


@flow(name="batch-predict")
def batch_predict(pipeline: str) -> dict[str, Any]:
    """Score the table that the pipeline declares, log the predictions, publish them by key.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.

    Returns
    -------
    dict
        The fields of :class:`~headwater.features.batch.batch_runs.BatchRun`.
    """
    ended: dict[str, Any] = msgspec.to_builtins(predict_batch(pipeline))
    return ended
