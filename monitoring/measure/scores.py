"""Compute a pipeline's metrics of outputs and labels, and their standard errors."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import polars as pl

from headwater.spec.data.records import Output
from headwater.spec.pipeline import Metric, Task
from headwater.spec.updating.evidence import LOWER_IS_BETTER

__all__ = ["as_logged", "block_error", "example_losses", "gained", "score", "score_error"]

_LEAST = 1e-15
_BLOCKS = 10


def score(
    task: Task, metrics: Sequence[Metric], outputs: pl.Series, labels: pl.Series
) -> dict[str, float]:
    """Compute metrics by scikit-learn; a metric that is undefined on these examples is left out.

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
    values = outputs.to_numpy().astype(np.float64)
    if task == "binary":
        return _binary(metrics, values, labels)
    with np.errstate(over="ignore"):  # a log may hold labels whose sum is infinite
        return _regression(metrics, values, labels)


def score_error(task: Task, metric: Metric, outputs: pl.Series, labels: pl.Series) -> float | None:
    """Compute the standard error of a metric; None if it is not known.

    For ROC AUC it is DeLong's, in Sun and Xu's form by ranks; for a mean over examples (log loss,
    accuracy, mean absolute error) the sample's standard deviation over the root of its size.

    Parameters
    ----------
    task, outputs, labels
        As for :func:`score`.
    metric
        Which one.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver
    Operating Characteristic Curves", Biometrics 44, 1988. Sun and Xu, "Fast Implementation of DeLong's
    Algorithm", IEEE Signal Processing Letters 21, 2014.

    Examples
    --------
    >>> outputs, labels = pl.Series([0.1, 0.4, 0.35, 0.8]), pl.Series([False, False, True, True])
    >>> round(score_error("binary", "roc_auc", outputs, labels), 4)
    0.3536
    """
    if metric == "roc_auc":
        return _auc_error(labels.to_numpy().astype(bool), outputs.to_numpy().astype(np.float64))
    losses = example_losses(task, metric, outputs, labels)
    if losses is None or len(losses) < 2:
        return None
    return float(losses.std(ddof=1) / np.sqrt(len(losses)))


def block_error(task: Task, metric: Metric, outputs: pl.Series, labels: pl.Series) -> float | None:
    """Compute the standard error of a metric over rows in time order; None if it is not known.

    Rows that come together are alike (a day of storms, say), so blocks of them are left out in turn, not
    single ones (Künsch, "The jackknife and the bootstrap for general stationary observations", 1989).

    Parameters
    ----------
    task, metric, outputs, labels
        As for :func:`score_error`; oldest first.
    """

    def value(rows: np.ndarray) -> float | None:
        return score(task, (metric,), outputs.filter(rows), labels.filter(rows)).get(metric)

    return _jackknife(value, len(labels))


def gained(
    task: Task, metric: Metric, new: pl.Series, old: pl.Series, labels: pl.Series
) -> tuple[float, float] | None:
    """Compute how much better a metric is by one version's outputs than by another's, and the error.

    Parameters
    ----------
    task, metric
        As for :func:`score`.
    new, old
        Outputs of both for the same rows, oldest first.
    labels
        The truth.

    Returns
    -------
    tuple of float or None
        Gain, above 0 if `new` is better, and its standard error as :func:`block_error` computes it;
        None if the metric is not defined.
    """

    def value(rows: np.ndarray) -> float | None:
        pair = [
            score(task, (metric,), outputs.filter(rows), labels.filter(rows)).get(metric)
            for outputs in (new, old)
        ]
        return None if pair[0] is None or pair[1] is None else sign * (pair[0] - pair[1])

    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    gain, error = value(np.ones(len(labels), dtype=bool)), _jackknife(value, len(labels))
    return None if gain is None or error is None else (gain, error)


def as_logged(outputs: Sequence[Output]) -> pl.Series:
    """Return outputs in the form of the log: numbers, or shares by class as JSON text."""
    values = [msgspec.json.encode(o).decode() if isinstance(o, dict) else o for o in outputs]
    return pl.Series("output", values)


def _jackknife(value: Callable[[np.ndarray], float | None], rows: int) -> float | None:
    block = np.arange(rows) * _BLOCKS // max(rows, 1)
    values = [value(block != left_out) for left_out in range(_BLOCKS)]
    defined = np.array([each for each in values if each is not None])
    if len(defined) < _BLOCKS:
        return None
    return float(np.sqrt((_BLOCKS - 1) / _BLOCKS * ((defined - defined.mean()) ** 2).sum()))


def example_losses(
    task: Task, metric: Metric, outputs: pl.Series, labels: pl.Series
) -> np.ndarray | None:
    """Return the loss of each example, if the metric is a mean over examples; None for other metrics."""
    if task == "multiclass":
        return _multiclass_losses(metric, outputs, labels)
    values, truth = outputs.to_numpy().astype(np.float64), labels.to_numpy().astype(np.float64)
    if metric == "log_loss":
        sure = np.clip(values, _LEAST, 1 - _LEAST)
        return np.asarray(-np.log(np.where(truth > 0.5, sure, 1 - sure)))
    if metric == "accuracy":
        return np.asarray(((values >= 0.5) == (truth > 0.5)).astype(np.float64))
    return np.abs(values - truth) if metric == "mae" else None


def _auc_error(truth: np.ndarray, values: np.ndarray) -> float | None:
    from scipy.stats import rankdata  # noqa: PLC0415 - half a second to import

    positive, negative = values[truth], values[~truth]
    if min(len(positive), len(negative)) < 2:
        return None
    ranks = rankdata(values)
    above = (ranks[truth] - rankdata(positive)) / len(negative)
    below = 1 - (ranks[~truth] - rankdata(negative)) / len(positive)
    return float(np.sqrt(above.var(ddof=1) / len(positive) + below.var(ddof=1) / len(negative)))


def _multiclass_losses(metric: Metric, outputs: pl.Series, labels: pl.Series) -> np.ndarray | None:
    shares = _shares(outputs)
    if metric == "log_loss":
        values = [row.get(label, 0.0) for row, label in zip(shares, labels.to_list(), strict=True)]
        return np.asarray(-np.log(np.clip(values, _LEAST, 1.0)))
    if metric == "accuracy":
        hits = [best == label for best, label in zip(_best(shares), labels.to_list(), strict=True)]
        return np.asarray(hits, dtype=np.float64)
    return None


def _binary(metrics: Sequence[Metric], values: np.ndarray, labels: pl.Series) -> dict[str, float]:
    from sklearn import metrics as sk  # noqa: PLC0415 - a second to import

    truth = labels.to_numpy().astype(bool)
    scores: dict[str, float] = {}
    for name in metrics:
        if name == "roc_auc" and 0 < truth.sum() < len(truth):
            scores[name] = float(sk.roc_auc_score(truth, values))
        elif name == "log_loss":
            scores[name] = float(
                sk.log_loss(truth, np.clip(values, _LEAST, 1 - _LEAST), labels=[False, True])
            )
        elif name == "accuracy":
            scores[name] = float(sk.accuracy_score(truth, values >= 0.5))
        elif name == "f1":
            scores[name] = float(sk.f1_score(truth, values >= 0.5, zero_division=0.0))
    return scores


def _regression(metrics: Sequence[Metric], values: np.ndarray, labels: pl.Series) -> dict[str, float]:
    from sklearn import metrics as sk  # noqa: PLC0415

    truth = labels.to_numpy()
    functions = {"mae": sk.mean_absolute_error, "rmse": sk.root_mean_squared_error}
    return {name: float(functions[name](truth, values)) for name in metrics if name in functions}


def _multiclass(metrics: Sequence[Metric], outputs: pl.Series, labels: pl.Series) -> dict[str, float]:
    from sklearn import metrics as sk  # noqa: PLC0415

    shares, truth = _shares(outputs), labels.to_list()
    best = _best(shares)
    scores: dict[str, float] = {}
    for name in metrics:
        if name == "accuracy":
            scores[name] = float(sk.accuracy_score(truth, best))
        elif name == "f1":
            scores[name] = float(sk.f1_score(truth, best, average="macro", zero_division=0.0))
        elif name == "log_loss":
            values = [row.get(label, 0.0) for row, label in zip(shares, truth, strict=True)]
            scores[name] = float(-np.log(np.clip(values, _LEAST, 1.0)).mean())
    return scores


def _shares(outputs: pl.Series) -> list[dict[str, float]]:
    decoder = msgspec.json.Decoder(dict[str, float])
    return [decoder.decode(text) for text in outputs.to_list()]


def _best(shares: Sequence[dict[str, float]]) -> list[str]:
    return [max(row, key=row.__getitem__) if row else "" for row in shares]
