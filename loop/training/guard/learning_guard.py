"""The guard of live learning: examples after which a state no longer answers as its labels explain.

A label of 1e9 among durations in minutes, or a feature of 1e30, is a number like others to every check
of types, and ruins the state of most learners. Two signs are looked for, on the newest examples:

- The example is *out*: one of its numbers lies more than three ranges beyond nearly all of those of the
  newest 2,048 examples, a range being a tenth of the largest of them at least; a label must also be
  more than twenty times the largest, since what is less may be true, or the first one of a break. The
  batch is learned once without and once with it, and each state then learns the newest examples once
  more, since what a tree has taken in may show when it splits. If the loss on the newest examples is
  more than half as large again with it (a fifth in a regression, where outliers add up), now or then,
  it would ruin the state. If it is *far out*, more than a hundred ranges beyond, it would also if the
  outputs differ by more than a tenth of their own range, or are worse, or one is *wild*.
- In a regression, outputs become *wild*: more than ten spreads of the newest labels beyond them, a
  spread being that from their 5th to their 95th percentile; or the mean error is above three spreads. A
  state that was half as bad before is not ruined by the example.

A label that is more than two ranges beyond the others, and is not out, is *unusual*: it may be true, or
the first of a break, and is learned. If the loss on the newest examples is then as much larger than that
of the state before it, now or once those are learned again, the state has *jumped*: live learning goes
on, and what served before serves until the state is no longer so much worse, on what is the newest then.
Live outputs that become wild though no number is out are held back, too: so a line swings for some
examples where a feature begins to change.

A break of the stream, where all examples change, is none of these: labels of the new kind explain
outputs of the new kind. Neither is a learner that starts anew, as those with drift detectors do.
"""

from typing import NamedTuple

import numpy as np
import polars as pl

from headwater.loop.training.guard.output_judge import PROBES, OutputJudge
from headwater.spec.pipeline import Task

__all__ = ["KNOWN", "LearningGuard", "Marks"]

KNOWN = 2_048
"""How many of the newest examples it judges by."""

_PART = 1_024
_REHEARSED = 512
_RARE = 0.005
_UNUSUAL_RANGES, _OUT_RANGES, _FAR_RANGES, _LEAST_RANGE = 2.0, 3.0, 100.0, 0.1
_BREAK_TIMES = 20.0


class Marks(NamedTuple):
    """Which examples of a batch are out, and which have an unusual label; None if none has."""

    out: pl.Series | None
    unusual: pl.Series | None


class LearningGuard(OutputJudge):
    """The newest examples of a fold that goes on, and what they explain; :meth:`after` gives the next.

    Parameters
    ----------
    task
        What is predicted.
    features, labels
        The newest examples that were learned, oldest first; empty if there are none.
    """

    def __init__(self, task: Task, features: pl.DataFrame, labels: pl.Series) -> None:
        super().__init__(task, labels)
        self._features = features

    def after(self, features: pl.DataFrame, labels: pl.Series) -> "LearningGuard":
        """Return the guard that knows some examples more."""
        if len(self._labels):
            features = pl.concat([self._features, features], how="vertical_relaxed")
            labels = pl.concat([self._labels, labels])
        return LearningGuard(self._task, features.tail(KNOWN), labels.tail(KNOWN))

    @property
    def probes(self) -> pl.DataFrame:
        """The features of the newest examples, on which states are compared."""
        return self._features.tail(PROBES)

    @property
    def rehearsed(self) -> tuple[pl.DataFrame, pl.Series]:
        """Features and labels of the newest examples, to see what states become as they go on."""
        return self._features.tail(_REHEARSED), self._labels.tail(_REHEARSED)

    def marks(self, features: pl.DataFrame, labels: pl.Series) -> Marks:
        """Return which examples are out, and which are unusual.

        A long batch is looked at in parts, each by the examples before it that are not out.
        """
        if len(labels) > _PART:
            return self._marks_in_parts(features, labels)
        unusual = self.unusual_columns(features, labels)
        if not unusual:
            return Marks(None, None)  # what is out is unusual, too
        out = _any(self._beyond(features, labels, _OUT_RANGES, _BREAK_TIMES))
        return Marks(out, unusual.get(""))

    def _marks_in_parts(self, features: pl.DataFrame, labels: pl.Series) -> Marks:
        guard, parts = self, []
        for start in range(0, len(labels), _PART):
            part, truth = features[start : start + _PART], labels[start : start + _PART]
            marks = guard.marks(part, truth)
            none = pl.repeat(False, len(truth), eager=True)
            parts.append([none if mask is None else mask for mask in marks])
            guard = guard.after(part.filter(~parts[-1][0]), truth.filter(~parts[-1][0]))
        out, unusual = map(pl.concat, zip(*parts, strict=True))
        return Marks(out if out.any() else None, unusual if unusual.any() else None)

    def far_columns(self, features: pl.DataFrame, labels: pl.Series) -> dict[str, pl.Series]:
        """Return which numbers of a column are far out, by name where any are; the label's is ``""``."""
        return self._beyond(features, labels, _FAR_RANGES, _BREAK_TIMES)

    def unusual_columns(self, features: pl.DataFrame, labels: pl.Series) -> dict[str, pl.Series]:
        """Return which numbers lie more than two ranges beyond, as :meth:`far_columns` does.

        Those of labels, too, which need not be many times the largest: such a number may well be true,
        so it is learned, and a person looks at it.
        """
        return self._beyond(features, labels, _UNUSUAL_RANGES, 0.0)

    def _beyond(
        self, features: pl.DataFrame, labels: pl.Series, ranges: float, label_times: float
    ) -> dict[str, pl.Series]:
        """Return which numbers are so many ranges beyond the known ones, by column where any are.

        A label must also be so many times the largest.
        """
        if not self._knows_enough:
            return {}
        columns = {
            column.name: (column, self._features[column.name]) for column in features.iter_columns()
        }
        columns[""] = labels, self._labels
        found = {
            name: _outside(column, known, ranges, 0.0 if name else label_times)
            for name, (column, known) in columns.items()
            if column.dtype.is_numeric()
        }
        return {name: mask for name, mask in found.items() if mask is not None}


def _any(masks: dict[str, pl.Series]) -> pl.Series | None:
    """Return which rows any mask marks; None without masks."""
    return pl.select(pl.any_horizontal(*masks.values())).to_series() if masks else None


def _outside(column: pl.Series, known: pl.Series, ranges: float, times: float) -> pl.Series | None:
    """Return for each number whether it is far beyond the known ones; None if none is.

    It is if it lies so many ranges beyond them, and so many times the largest of them.
    """
    numbers = known.drop_nulls().to_numpy()
    if not len(numbers) or column.null_count() == len(column):
        return None
    # Not the extremes: an example that was learned without harm must not hide the next one.
    rare = int(_RARE * len(numbers))
    ordered = np.partition(numbers, (rare, len(numbers) - 1 - rare))
    low, high = float(ordered[rare]), float(ordered[-1 - rare])
    least, greatest = column.min(), column.max()
    largest = max(abs(low), abs(high))
    known_range = max(high - low, _LEAST_RANGE * largest) if high > low else max(largest, 1.0)
    beyond = max(ranges * known_range, times * largest)
    low, high = low - beyond, high + beyond
    if low <= float(least) and float(greatest) <= high:  # type: ignore[arg-type] # of numbers
        return None
    return ~column.cast(pl.Float64).is_between(low, high).fill_null(value=True)
