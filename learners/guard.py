"""Guards of an estimator's input and output: one NaN makes a linear model answer NaN for ever."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import polars as pl

from headwater.spec.data.records import FeatureValue, LabelValue, Output
from headwater.spec.data.values import LARGEST, is_sound
from headwater.spec.errors import HeadwaterError, NonFiniteError, SchemaError, UnlearnableError, few
from headwater.spec.outputs import misfit_of_output
from headwater.spec.pipeline import Task

__all__ = [
    "check_batch",
    "check_one",
    "check_outputs",
    "estimator_name",
    "keeping_last_good",
    "learning",
]


_LONGEST = 300  # what is wrong may quote an output, or a library


class _Restorable(Protocol):
    def dump(self) -> bytes: ...

    def load(self, state: bytes) -> None: ...


@contextmanager
def keeping_last_good(learner: _Restorable, estimator: object) -> Iterator[None]:
    """Put the learner back into the state it had, if learning raises as :func:`learning` does."""
    before = learner.dump()
    try:
        with learning(estimator):
            yield
    except Exception:
        learner.load(before)
        raise


@contextmanager
def learning(estimator: object) -> Iterator[None]:
    """Name the estimator in the error if its library refuses to learn.

    Raises
    ------
    UnlearnableError
        If it raises anything that is not headwater's own; the cause is its own error.
    """
    try:
        yield
    except (HeadwaterError, MemoryError):
        raise
    except Exception as error:
        message = " ".join(str(error).split())[:_LONGEST]
        raise UnlearnableError(
            f"{estimator_name(estimator)} refuses to learn: {type(error).__name__}: {message}",
            hint="mend the parameter that it names in the model; if it is the examples' fault, "
            "headwater quarantine PIPELINE START:STOP leaves them out",
        ) from error


def estimator_name(estimator: object) -> str:
    """Name an estimator; a pipeline, with its steps.

    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> estimator_name(make_pipeline("passthrough", Ridge()))
    'Pipeline (passthrough, Ridge)'
    """
    steps = getattr(estimator, "steps", None)
    if not steps:
        return estimator if isinstance(estimator, str) else type(estimator).__name__
    return f"{type(estimator).__name__} ({', '.join(map(estimator_name, dict(steps).values()))})"


def check_batch(names: Sequence[str], features: pl.DataFrame, labels: pl.Series) -> None:
    """Refuse a batch before anything of it is learned.

    Raises
    ------
    SchemaError
        If the columns are not the schema's, or a label is missing.
    NonFiniteError
        If a number is NaN, infinite or beyond :data:`~headwater.spec.data.values.LARGEST`.
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
    """Refuse a state whose outputs do not fit its task, such as NaN.

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
