"""The gate before promotion: a candidate is compared with the champion on what neither has learned."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from headwater.learners.learner import Learner
from headwater.spec.gate import Gate
from headwater.spec.pipeline import Task
from headwater.spec.records import Output

__all__ = ["Judged", "held_back", "judge", "losses"]

_LEAST = 1e-15
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
    new = losses(task, candidate.predict(features), labels)
    old = losses(task, champion.predict(features), labels)
    worse = float((new - old).mean())
    error = float((new - old).std(ddof=1) / np.sqrt(len(new)))
    passes = worse <= gate.deviations * error
    reason = (
        f"mean loss {new.mean():.4f} against the champion's {old.mean():.4f} on the newest "
        f"{len(new):,} examples, difference {worse:+.4f} ± {error:.4f}"
    )
    return Judged(passes=passes, reason=reason, examples=len(new), worse=worse, error=error)


def losses(task: Task, outputs: Sequence[Output], labels: pl.Series) -> npt.NDArray[np.float64]:
    """Give each example's log loss, or squared error in a regression.

    Parameters
    ----------
    task
        What is predicted.
    outputs
        Probability of the positive class, value, or shares by class.
    labels
        The truth, as many.
    """
    if task == "multiclass":
        shares = [
            output.get(label, 0.0) if isinstance(output, dict) else 0.0
            for output, label in zip(outputs, labels.to_list(), strict=True)
        ]
        return np.asarray(-np.log(np.clip(np.array(shares, dtype=np.float64), _LEAST, 1.0)))
    given = np.array(outputs, dtype=np.float64)
    truth = labels.to_numpy().astype(np.float64)
    if task == "regression":
        return np.asarray((given - truth) ** 2)
    shares_true = np.where(truth > 0.5, given, 1 - given)
    return np.asarray(-np.log(np.clip(shares_true, _LEAST, 1.0)))
