"""What must never reach an estimator: one NaN makes a linear model answer NaN for ever."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import polars as pl

from headwater.spec.errors import NonFiniteError, SchemaError, few
from headwater.spec.outputs import misfit_of_output
from headwater.spec.pipeline import Task
from headwater.spec.records import FeatureValue, LabelValue, Output
from headwater.spec.values import LARGEST, is_sound

__all__ = ["check_batch", "check_one", "check_outputs", "keeping_last_good"]


_LONGEST = 300  # what is wrong may quote an output


class _Restorable(Protocol):
    def dump(self) -> bytes: ...

    def load(self, state: bytes) -> None: ...


@contextmanager
def keeping_last_good(learner: _Restorable, *, started: bool) -> Iterator[None]:
    """Put the learner back into the state it had, if learning raises."""
    before = learner.dump() if started else None
    try:
        yield
    except Exception:
        if before is not None:
            learner.load(before)
        raise


def check_batch(names: Sequence[str], features: pl.DataFrame, labels: pl.Series) -> None:
    """Refuse a batch before anything of it is learned.

    Raises
    ------
    SchemaError
        If the columns are not the schema's, or a label is missing.
    NonFiniteError
        If a number is NaN, infinite or beyond :data:`~headwater.spec.values.LARGEST`.
    """
    if tuple(features.columns) != tuple(names):
        raise SchemaError(
            f"the batch has the features {few(features.columns)}",
            hint=f"give exactly {', '.join(names)}, in this order",
        )
    if len(labels) != features.height or labels.null_count():
        raise SchemaError(
            f"the batch has {features.height} rows and {len(labels) - labels.null_count()} labels",
            hint="learn examples only: predictions whose label is known",
        )
    for series in [*features.get_columns(), labels.alias("label")]:
        if series.dtype.is_float() and not _is_sound(series):
            raise NonFiniteError(
                f"feature {series.name!r} holds NaN, infinity or a number beyond {LARGEST:.0e}",
                hint="quarantine the offsets that hold it: headwater quarantine PIPELINE START:STOP",
            )


def _is_sound(series: pl.Series) -> bool:
    present = (series.drop_nulls() if series.null_count() else series).to_numpy()
    return bool(np.abs(present).max(initial=0.0) <= LARGEST)  # NaN is the largest, and compares False


def check_one(features: Mapping[str, FeatureValue], label: LabelValue) -> None:
    """Refuse one example, as :func:`check_batch` does."""
    for name, value in [*features.items(), ("label", label)]:
        if isinstance(value, float) and not is_sound(value):
            raise NonFiniteError(
                f"feature {name!r} is {value}", hint=f"learn finite numbers of at most {LARGEST:.0e}"
            )


def check_outputs(outputs: Sequence[Output], task: Task) -> None:
    """Refuse a state that answers with what is no output of its task, such as NaN.

    Raises
    ------
    NonFiniteError
        If it does.
    """
    for output in outputs:
        why = misfit_of_output(task, output)
        if why is not None:
            raise NonFiniteError(
                f"after learning, the learner answers {str(output)[:_LONGEST]}, which {why}",
                hint="the last good state was kept; lower the learning rate, or scale the features",
            )
