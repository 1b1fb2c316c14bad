"""Evaluate served predictions: progressive validation under the labels' real delay."""

import polars as pl

from headwater.monitoring.measure.scores import score
from headwater.spec.pipeline import Pipeline

__all__ = ["served_scores"]


def served_scores(pipeline: Pipeline, examples: pl.DataFrame) -> dict[str, float]:
    """Score served predictions: every example was predicted before any version learned it.

    This is progressive validation under the labels' real delay (Blum, Kalai and Langford, "Beating
    the hold-out", COLT 1999). Imported history, which headwater did not serve, is left out.
    """
    served = examples.filter(pl.col("role") != "imported").select("output", "label")
    return score(pipeline.task, pipeline.judged_by, served["output"], served["label"])
