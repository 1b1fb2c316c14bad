"""The gate before promotion: compare candidate and champion on examples that neither has learned."""

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from headwater.learners.learner import Learner
from headwater.monitoring.measure.scores import as_logged, example_losses
from headwater.spec.pipeline import Metric, Task
from headwater.spec.updating.gate import Gate

__all__ = ["GateResult", "held_back", "judge", "judge_outputs"]

_SHARE = 5


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict of a gate.

    Parameters
    ----------
    passes
        Whether the candidate may become champion.
    reason
        Why, in words.
    examples
        How many examples it was judged on.
    worse
        Mean loss of the candidate less that of the champion; above 0 is worse.
    error
        Standard error of `worse`.
    """

    passes: bool
    reason: str
    examples: int
    worse: float
    error: float


def held_back(gate: Gate | None, new: int) -> int:
    """Return how many of the newest examples the gate judges on, and the candidate does not learn.

    >>> held_back(Gate(examples=500), 10_000), held_back(Gate(examples=500), 900), held_back(None, 900)
    (500, 180, 0)
    """
    return 0 if gate is None else min(gate.examples, new // _SHARE)


def judge(
    gate: Gate, task: Task, candidate: Learner, champion: Learner, examples: pl.DataFrame
) -> GateResult:
    """Compare the losses of two learners, pair by pair.

    Parameters
    ----------
    gate
        How much worse is too much.
    task
        The task of both.
    candidate, champion
        Neither has learned the examples.
    examples
        Columns ``features`` (a struct) and ``label``.
    """
    features = examples["features"].struct.unnest()
    new, old = (as_logged(learner.predict(features)) for learner in (candidate, champion))
    return judge_outputs(gate, task, new, old, examples["label"])


def judge_outputs(
    gate: Gate, task: Task, new: pl.Series, old: pl.Series, labels: pl.Series
) -> GateResult:
    """Compare the losses of outputs, pair by pair.

    Parameters
    ----------
    gate, task
        As for :func:`judge`.
    new, old
        Outputs of the candidate and of the champion for the same examples, before either learned them,
        in the form of the log.
    labels
        The truth.
    """
    if len(labels) < 2:
        return GateResult(passes=True, reason="too few to judge", examples=0, worse=0.0, error=0.0)
    new_losses, old_losses = _losses(task, new, labels), _losses(task, old, labels)
    worse = float((new_losses - old_losses).mean())
    error = float((new_losses - old_losses).std(ddof=1) / np.sqrt(len(labels)))
    reason = (
        f"mean loss {new_losses.mean():.4f} against the champion's {old_losses.mean():.4f} on the "
        f"newest {len(labels):,} examples, difference {worse:+.4f} ± {error:.4f}"
    )
    passes = worse <= gate.deviations * error
    return GateResult(passes=passes, reason=reason, examples=len(labels), worse=worse, error=error)


def _losses(task: Task, outputs: pl.Series, labels: pl.Series) -> npt.NDArray[np.float64]:
    """Return each example's log loss, or its absolute error in a regression."""
    metric: Metric = "mae" if task == "regression" else "log_loss"
    losses = example_losses(task, metric, outputs, labels)
    return np.zeros(0) if losses is None else losses
