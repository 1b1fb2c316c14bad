"""The gate before promotion: a candidate is compared with the champion on what neither has learned."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from headwater.learners.learner import Learner
from headwater.monitoring.scores import as_logged, example_losses
from headwater.spec.gate import Gate
from headwater.spec.pipeline import Metric, Task
from headwater.spec.records import Output

__all__ = ["Judged", "held_back", "judge"]

_SHARE = 5


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate says.

    Parameters
    ----------
    passes
        Whether the candidate may become champion.
    reason
        Why, in words.
    examples
        How many it was judged on.
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
    """Say how many of the newest examples are not learned, but judged on.

    >>> held_back(Gate(examples=500), 10_000), held_back(Gate(examples=500), 900), held_back(None, 900)
    (500, 180, 0)
    """
    return 0 if gate is None else min(gate.examples, new // _SHARE)


def judge(
    gate: Gate, task: Task, candidate: Learner, champion: Learner, examples: pl.DataFrame
) -> Judged:
    """Compare losses pair by pair.

    Parameters
    ----------
    gate
        How much worse is too much.
    task
        What is predicted.
    candidate, champion
        Neither has learned the examples.
    examples
        Columns ``features`` (a struct) and ``label``.
    """
    if examples.height < 2:
        return Judged(passes=True, reason="too few to judge", examples=0, worse=0.0, error=0.0)
    features = examples["features"].struct.unnest()
    labels = examples["label"]
    new = _losses(task, candidate.predict(features), labels)
    old = _losses(task, champion.predict(features), labels)
    worse = float((new - old).mean())
    error = float((new - old).std(ddof=1) / np.sqrt(len(new)))
    passes = worse <= gate.deviations * error
    reason = (
        f"mean loss {new.mean():.4f} against the champion's {old.mean():.4f} on the newest "
        f"{len(new):,} examples, difference {worse:+.4f} ± {error:.4f}"
    )
    return Judged(passes=passes, reason=reason, examples=len(new), worse=worse, error=error)


def _losses(task: Task, outputs: Sequence[Output], labels: pl.Series) -> npt.NDArray[np.float64]:
    """Give each example's log loss, or absolute error in a regression."""
    metric: Metric = "mae" if task == "regression" else "log_loss"
    found = example_losses(task, metric, as_logged(outputs), labels)
    return np.zeros(0) if found is None else found
