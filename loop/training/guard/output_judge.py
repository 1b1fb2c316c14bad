"""How a state's outputs on the newest examples compare with those of another, and with the labels.

The rules are those of :mod:`headwater.loop.training.guard.learning_guard`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from headwater.spec.data.records import Output
from headwater.spec.pipeline import Task

__all__ = ["PROBES", "OutputJudge"]

PROBES = 128
"""How many of the newest examples outputs are compared on."""

_LEAST_KNOWN = 100
_MOVED = 0.1
_SURE, _LITTLE = 4.0, 0.05
_HARMED, _HARMED_REGRESSION = 1.5, 1.2  # a log loss near none rises by half for nothing
_LIKELY = 2.0
_LEAST_CHANCE = 0.01
_WILD_SPREADS, _WILD_ROWS = 10.0, 2
_WRONG_SPREADS = 3.0
_DOUBLED = 2.0
_TRIMMED = 30  # of so many losses, the largest one does not count

_Numbers = npt.NDArray[np.float64]


class OutputJudge:
    """Judges outputs for the newest examples by their labels.

    Parameters
    ----------
    task
        What is predicted.
    labels
        The newest ones, oldest first; outputs are for the last :data:`PROBES` of them.
    """

    def __init__(self, task: Task, labels: pl.Series) -> None:
        self._task = task
        self._labels = labels

    @property
    def watches_outputs(self) -> bool:
        """Whether outputs can be wild: those of a regression, of which enough labels are known."""
        return self._task == "regression" and self._knows_enough

    @property
    def _knows_enough(self) -> bool:
        return len(self._labels) >= _LEAST_KNOWN

    def harm(self, without: Sequence[Output], with_them: Sequence[Output]) -> str | None:
        """Return in words how much worse examples make the outputs for the newest; None if little.

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
            Outputs for the newest examples, and then for the examples that are far out.
        """
        old, new = self._numbers(without), self._numbers(with_them)
        if not np.isfinite(new).all():
            return "outputs are not finite then"
        known = slice(0, min(PROBES, len(old)))
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
        """Return in words why outputs for the newest are beyond the labels; None if they are not.

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

    def _wild(self, numbers: _Numbers) -> npt.NDArray[np.bool_]:
        low, high, spread = self._explained()
        most = _WILD_SPREADS * spread
        return ~((numbers >= low - most) & (numbers <= high + most))

    def _explained(self) -> tuple[float, float, float]:
        """Return where most labels lie, and their spread: if nearly all are one number, their range.

        The newest ones count by themselves, too: after a break they alone are of the new kind.
        """
        labels = self._label_numbers()
        spans = np.array([np.quantile(some, (0.05, 0.95)) for some in (labels, labels[-PROBES:])])
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
        labels = self._labels.tail(PROBES).to_list()
        labels += [""] * (len(outputs) - len(labels))
        numbers = [
            output.get(label, 0.0) if isinstance(output, dict) else output
            for output, label in zip(outputs, labels, strict=True)
        ]
        return np.array(numbers, dtype=np.float64)


def _is_worse(old: _Numbers, new: _Numbers) -> bool:
    """Tell whether errors grew, by more than chance and more than a little."""
    error = float((new - old).std(ddof=1)) / np.sqrt(len(new))
    grown = float((new - old).mean())
    return grown > _SURE * error and grown > _LITTLE * float(old.mean())
