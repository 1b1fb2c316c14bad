"""What a pipeline's metrics make of outputs and labels."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from headwater.spec.pipeline import Metric, Pipeline, Task

__all__ = ["score", "served_scores"]


def score(
    task: Task, metrics: Sequence[Metric], outputs: pl.Series, labels: pl.Series
) -> dict[str, float]:
    """Compute metrics by scikit-learn; one that is undefined on these examples is left out.

    Parameters
    ----------
    task
        What is predicted.
    metrics
        Which ones, by name.
    outputs
        Probability of the positive class, value, or shares by class as JSON text.
    labels
        The truth, as many.

    Returns
    -------
    dict
        Metric by name.
    """
    if not len(labels):
        return {}
    if task == "multiclass":
        return _multiclass(metrics, outputs, labels)
    given = outputs.to_numpy().astype(np.float64)
    return (
        _regression(metrics, given, labels) if task == "regression" else _binary(metrics, given, labels)
    )


def served_scores(pipeline: Pipeline, examples: pl.DataFrame) -> dict[str, float]:
    """Score what was served: every example was predicted before anything learned it.

    This is progressive validation under the labels' real delay (Blum, Kalai and Langford, "Beating
    the hold-out", COLT 1999). Imported history, which headwater did not serve, is left out.
    """
    served = examples.filter(pl.col("role") != "imported").select("output", "label")
    return score(pipeline.task, pipeline.judged_by, served["output"], served["label"])


def _binary(metrics: Sequence[Metric], given: np.ndarray, labels: pl.Series) -> dict[str, float]:
    from sklearn import metrics as sk  # noqa: PLC0415 - a second to import

    truth = labels.to_numpy().astype(bool)
    found: dict[str, float] = {}
    for name in metrics:
        if name == "roc_auc" and 0 < truth.sum() < len(truth):
            found[name] = float(sk.roc_auc_score(truth, given))
        elif name == "log_loss":
            found[name] = float(
                sk.log_loss(truth, np.clip(given, 1e-15, 1 - 1e-15), labels=[False, True])
            )
        elif name == "accuracy":
            found[name] = float(sk.accuracy_score(truth, given >= 0.5))
        elif name == "f1":
            found[name] = float(sk.f1_score(truth, given >= 0.5, zero_division=0.0))
    return found


def _regression(metrics: Sequence[Metric], given: np.ndarray, labels: pl.Series) -> dict[str, float]:
    from sklearn import metrics as sk  # noqa: PLC0415

    truth = labels.to_numpy()
    known = {"mae": sk.mean_absolute_error, "rmse": sk.root_mean_squared_error}
    return {name: float(known[name](truth, given)) for name in metrics if name in known}


def _multiclass(metrics: Sequence[Metric], outputs: pl.Series, labels: pl.Series) -> dict[str, float]:
    import msgspec  # noqa: PLC0415
    from sklearn import metrics as sk  # noqa: PLC0415

    decoder = msgspec.json.Decoder(dict[str, float])
    shares = [decoder.decode(text) for text in outputs.to_list()]
    truth = labels.to_list()
    best = [max(found, key=found.__getitem__) if found else "" for found in shares]
    scores: dict[str, float] = {}
    for name in metrics:
        if name == "accuracy":
            scores[name] = float(sk.accuracy_score(truth, best))
        elif name == "f1":
            scores[name] = float(sk.f1_score(truth, best, average="macro", zero_division=0.0))
        elif name == "log_loss":
            given = [found.get(label, 0.0) for found, label in zip(shares, truth, strict=True)]
            scores[name] = float(-np.log(np.clip(given, 1e-15, 1.0)).mean())
    return scores
