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

A label between three ranges and twenty times the largest, or a feature between two ranges and three, is
*unusual*: it may be true, or the first of a break, and is learned. If the loss on the newest examples is
then as much larger than that of the state before it, now or once those are learned again, the state has
*jumped*: live learning goes on, and what served before serves until the state is no longer so
much worse, on what is the newest then. Live outputs that become wild though no number is out are held
back, too: so a line swings for some examples where a feature begins to change.

A break of the stream, where all examples change, is none of these: labels of the new kind explain
outputs of the new kind. Neither is a learner that starts anew, as those with drift detectors do.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from headwater.spec.data.records import Output
from headwater.spec.pipeline import Task

__all__ = ["KNOWN", "LearningGuard", "Marks"]

KNOWN = 2_048
"""How many of the newest examples it judges by."""

_LEAST_KNOWN = 100
_PART = 1_024
_PROBES = 128
_REHEARSED = 512
_RARE = 0.005
_UNUSUAL_RANGES, _OUT_RANGES, _FAR_RANGES, _LEAST_RANGE = 2.0, 3.0, 100.0, 0.1
_MOVED = 0.1
_SURE, _LITTLE = 4.0, 0.05
_BREAK_TIMES = 20.0
_HARMED, _HARMED_REGRESSION = 1.5, 1.2  # a log loss near none rises by half for nothing
_LIKELY = 2.0
_LEAST_CHANCE = 0.01
_WILD_SPREADS, _WILD_ROWS = 10.0, 2
_WRONG_SPREADS = 3.0
_DOUBLED = 2.0
_TRIMMED = 30  # of so many losses, the largest one does not count

_Numbers = npt.NDArray[np.float64]


class Marks(NamedTuple):
    """Which examples of a batch are out, and which are unusual, or out; None if none is."""

    out: pl.Series | None
    unusual: pl.Series | None


class LearningGuard:
    """The newest examples of a fold that goes on, and what they explain; :meth:`after` gives the next.

    Parameters
    ----------
    task
        What is predicted.
    features, labels
        The newest examples that were learned, oldest first; empty if there are none.
    """

    def __init__(self, task: Task, features: pl.DataFrame, labels: pl.Series) -> None:
        self._task = task
        self._features, self._labels = features, labels

    def after(self, features: pl.DataFrame, labels: pl.Series) -> "LearningGuard":
        """Return the guard that knows some examples more."""
        if len(self._labels):
            features = pl.concat([self._features, features], how="vertical_relaxed")
            labels = pl.concat([self._labels, labels])
        return LearningGuard(self._task, features.tail(KNOWN), labels.tail(KNOWN))

    @property
    def probes(self) -> pl.DataFrame:
        """The features of the newest examples, on which states are compared."""
        return self._features.tail(_PROBES)

    @property
    def rehearsed(self) -> tuple[pl.DataFrame, pl.Series]:
        """Features and labels of the newest examples, to see what states become as they go on."""
        return self._features.tail(_REHEARSED), self._labels.tail(_REHEARSED)

    @property
    def watches_outputs(self) -> bool:
        """Whether outputs can be wild: those of a regression, of which enough labels are known."""
        return self._task == "regression" and self._knows_enough

    def marks(self, features: pl.DataFrame, labels: pl.Series) -> Marks:
        """Return which examples are out, and which are unusual.

        A long batch is looked at in parts, each by the examples before it that are not out.
        """
        if len(labels) > _PART:
            return self._marks_in_parts(features, labels)
        unusual = _any(self.unusual_columns(features, labels))
        if unusual is None:
            return Marks(None, None)  # what is out is unusual, too
        return Marks(_any(self._beyond(features, labels, _OUT_RANGES, _BREAK_TIMES)), unusual)

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
        so the guard does not go by it, and a person looks at it.
        """
        return self._beyond(features, labels, _UNUSUAL_RANGES, 0.0)

    def harm(self, without: Sequence[Output], with_them: Sequence[Output]) -> str | None:
        """Return in words how much worse examples make the outputs for :attr:`probes`; None if little.

        Parameters
        ----------
        without, with_them
            Outputs of the state without and with the examples.
        """
        new = self._numbers(with_them)
        if not np.isfinite(new).all():
            return "outputs are not finite then"
        before, after = self._losses(self._numbers(without)), self._losses(new)
        # Without the worst ones: an outlier that was learned without harm must not hide the next.
        kept = np.argsort(before)[: len(before) - len(before) // _TRIMMED]
        before, after = before[kept], after[kept]
        risen = after - before
        sure = float(risen.mean()) > _LIKELY * float(risen.std(ddof=1)) / np.sqrt(len(risen))
        harmed = _HARMED_REGRESSION if self._task == "regression" else _HARMED
        if not sure or after.mean() <= harmed * before.mean():
            return None
        return (
            f"the loss on the newest {len(risen)} examples is {after.mean():.3g} with it, and "
            f"{before.mean():.3g} without"
        )

    def jump(self, without: Sequence[Output], with_them: Sequence[Output]) -> str | None:
        """Return in words how examples that are far out move the outputs; None if they hardly do.

        Parameters
        ----------
        without, with_them
            Outputs for :attr:`probes`, and then for the examples that are far out.
        """
        old, new = self._numbers(without), self._numbers(with_them)
        if not np.isfinite(new).all():
            return "outputs are not finite then"
        known = slice(0, min(_PROBES, len(old)))
        spread = float(np.subtract(*np.quantile(old[known], (0.9, 0.1))))
        spread = max(spread, 1e-3 * float(np.abs(old[known]).max())) or 1.0
        moved = float(np.minimum(np.abs(new - old)[known], spread).mean()) / spread
        if moved > _MOVED:
            return f"the outputs on the newest examples move by {moved:.0%} of their range"
        if _is_worse(self._errors(old[known]), self._errors(new[known])):
            return "the outputs on the newest examples are worse then"
        if self.watches_outputs and (self._wild(new) & ~self._wild(old)).any():
            return "outputs are then far beyond all labels"
        return None

    def ruin(self, outputs: Sequence[Output], before: Sequence[Output] = ()) -> str | None:
        """Return in words why outputs for :attr:`probes` are beyond the labels; None if they are not.

        Parameters
        ----------
        outputs
            Of a state.
        before
            Of the state before it, if known: what is not twice as bad as that was bad before.
        """
        numbers = self._numbers(outputs)
        wild, error = self._wild(numbers), self._usual_error(numbers)
        old = self._numbers(before) if len(before) else None
        wild_before = 0 if old is None else self._wild(old).sum()
        if wild.sum() > max(_WILD_ROWS, _DOUBLED * wild_before):
            low, high, _ = self._explained()
            return (
                f"{wild.sum()} of the outputs on the newest {len(wild)} examples, such as "
                f"{numbers[wild][0]:g}, are far beyond the labels, most of which are {low:g} to {high:g}"
            )
        error_before = 0.0 if old is None else self._usual_error(old)
        if error > max(_WRONG_SPREADS * self._explained()[2], _DOUBLED * error_before):
            return (
                f"the mean error on the newest {len(numbers)} examples is {error:g}, more than "
                f"{_WRONG_SPREADS:g} times the spread of their labels"
            )
        return None

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

    @property
    def _knows_enough(self) -> bool:
        return len(self._labels) >= _LEAST_KNOWN

    def _wild(self, numbers: _Numbers) -> npt.NDArray[np.bool_]:
        low, high, spread = self._explained()
        most = _WILD_SPREADS * spread
        return ~((numbers >= low - most) & (numbers <= high + most))

    def _explained(self) -> tuple[float, float, float]:
        """Return where most labels lie, and their spread: if nearly all are one number, their range.

        The newest ones count by themselves, too: after a break they alone are of the new kind.
        """
        labels = self._label_numbers()
        spans = np.array([np.quantile(some, (0.05, 0.95)) for some in (labels, labels[-_PROBES:])])
        low, high = float(spans[:, 0].min()), float(spans[:, 1].max())
        spread = float(np.ptp(spans, axis=1).max()) or float(np.ptp(labels)) or max(abs(high), 1.0)
        return low, high, spread

    def _errors(self, numbers: _Numbers) -> _Numbers:
        """Return how far the outputs for the newest examples are from their labels."""
        if self._task == "multiclass":
            return 1.0 - numbers
        return np.abs(numbers - self._label_numbers()[-len(numbers) :])

    def _usual_error(self, numbers: _Numbers) -> float:
        """Return the mean error of outputs for the newest examples, without the largest ones."""
        errors = np.sort(self._errors(numbers))
        return float(errors[: len(errors) - len(errors) // _TRIMMED].mean())

    def _losses(self, numbers: _Numbers) -> _Numbers:
        """Return the log loss of the outputs for the newest examples, or the error in a regression."""
        errors = self._errors(numbers)
        return errors if self._task == "regression" else -np.log(np.maximum(1 - errors, _LEAST_CHANCE))

    def _label_numbers(self) -> _Numbers:
        return self._labels.to_numpy().astype(np.float64)

    def _numbers(self, outputs: Sequence[Output]) -> _Numbers:
        """Return a number an output: of chances by class, that of the true class, where it is known."""
        labels = self._labels.tail(_PROBES).to_list()
        labels += [""] * (len(outputs) - len(labels))
        numbers = [
            output.get(label, 0.0) if isinstance(output, dict) else output
            for output, label in zip(outputs, labels, strict=True)
        ]
        return np.array(numbers, dtype=np.float64)


def _any(masks: dict[str, pl.Series]) -> pl.Series | None:
    """Return which rows any mask marks; None without masks."""
    return pl.select(pl.any_horizontal(*masks.values())).to_series() if masks else None


def _is_worse(old: _Numbers, new: _Numbers) -> bool:
    """Tell whether errors grew, by more than chance and more than a little."""
    error = float((new - old).std(ddof=1)) / np.sqrt(len(new))
    grown = float((new - old).mean())
    return grown > _SURE * error and grown > _LITTLE * float(old.mean())


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
