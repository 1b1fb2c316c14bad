"""Prepare two windows for comparison: sampled rows, the champion's outputs, labels and relations."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from headwater.monitoring.attention.relations import Relations, relate
from headwater.monitoring.measure.columns import is_number
from headwater.monitoring.measure.labelled_rows import (
    classes_of,
    labelled,
    labels_of,
    outputs_of,
    positive_chances,
    sample,
    served_numbers,
    served_or_predicted,
)
from headwater.monitoring.measure.losses import GROUPS, Side, badness, jackknifed
from headwater.spec.data.feature import FeatureKind
from headwater.spec.data.records import Output
from headwater.spec.pipeline import Metric, Task

__all__ = ["Predict", "WatchedChampion", "WindowPair", "prepare"]

_ROWS = 4_000  # drawn of each window, for outputs and relations
_WEIGHTED = 20_000  # drawn of the reference with what was served of it, to be weighted

Predict = Callable[[pl.DataFrame], Sequence[Output]]
"""A champion's predict: an output for each row of a frame with a column for each feature."""


class WatchedChampion(NamedTuple):
    """The champion whose windows are compared, and how they are judged.

    Parameters
    ----------
    features, task
        As the pipeline declares them.
    metric
        The pipeline's first metric.
    predict
        Computes outputs for rows with a column for each feature.
    least
        A window of fewer rows is ``insufficient_data``.
    seed
        Seeds the samples of rows.
    """

    features: tuple[FeatureKind, ...]
    task: Task
    metric: Metric
    predict: Predict
    least: int
    seed: int = 0


class WindowPair(NamedTuple):
    """Two windows, prepared for attribution.

    Parameters
    ----------
    features
        The columns of all frames.
    metric
        The pipeline's first one.
    predict
        Computes the champion's outputs as an array; it ignores columns that are no features.
    reference, current
        At most 4,000 rows of each window.
    reference_outputs, current_outputs
        The champion's outputs for them.
    labelled
        At most 4,000 labelled rows of the reference, on which columns are replaced. Labels of a binary
        task are chances, by the output that was served before the row was learned.
    weighted
        Up to 20,000 such rows with their served outputs and labels, to be weighted; without served
        outputs `labelled` again.
    relations
        How the columns depend on each other.
    rng
        Draws samples.
    """

    features: tuple[FeatureKind, ...]
    metric: Metric
    predict: Callable[[pl.DataFrame], np.ndarray]
    reference: pl.DataFrame
    current: pl.DataFrame
    reference_outputs: np.ndarray
    current_outputs: np.ndarray
    labelled: Side
    weighted: Side
    relations: Relations
    rng: np.random.Generator

    def is_number(self, name: str) -> bool:
        """Tell whether a column is a number in both windows; else it is a category."""
        kind = next(kind for kind in self.features if kind.name == name)
        return is_number(kind, self.reference[name], self.current[name])


def prepare(
    reference: pl.DataFrame, current: pl.DataFrame, champion: WatchedChampion, *, windows: int
) -> WindowPair | str:
    """Make two windows ready; if they cannot be judged, return a note that says why.

    Parameters
    ----------
    reference, current, champion
        As for :func:`headwater.monitoring.attention.attention.attend`; both windows hold every feature.
    windows
        How many windows as long as the current one the reference has.
    """
    features, task, metric, predict, _, seed = champion
    rng = np.random.default_rng(seed)
    names = [kind.name for kind in features]
    rows = labelled(reference)
    first, second = sample(reference, _ROWS, rng), sample(current, _ROWS, rng)
    few = first if rows.height == reference.height else sample(rows, _ROWS, rng)
    if few.height < GROUPS * 2:
        return "not judged: the reference has too few labels"
    classes = classes_of(few, task)

    def outputs(frame: pl.DataFrame) -> np.ndarray:
        return outputs_of(predict(frame.select(names)), classes)

    labels, few_outputs = labels_of(few, classes), outputs(few)
    if badness(metric, labels, few_outputs, np.ones(few.height)) is None:
        return f"not judged: {metric} is not defined on the reference"
    if task == "binary":
        labels = positive_chances(few, labels)
    bad = jackknifed(metric, labels, few_outputs)
    if bad is None:
        return f"not judged: {metric} is not defined on parts of the reference"
    side = Side(few.select(names), few_outputs, labels, bad)
    reference_outputs = few_outputs if few is first else outputs(first)
    current_outputs = served_or_predicted(second, classes, outputs)
    first, second = side.frame if few is first else first.select(names), second.select(names)
    by = few_outputs if few_outputs.ndim == 1 else few_outputs.max(axis=1)
    relations = relate(features, first, second, side.frame, by, windows)
    many = sample(rows, _WEIGHTED, rng)
    weighted = None if classes else _served_side(many, names, metric)
    return WindowPair(
        features=features,
        metric=metric,
        predict=outputs,
        reference=first,
        current=second,
        reference_outputs=reference_outputs,
        current_outputs=current_outputs,
        labelled=side,
        weighted=weighted or side,
        relations=relations,
        rng=rng,
    )


def _served_side(rows: pl.DataFrame, names: Sequence[str], metric: Metric) -> Side | None:
    """Take the outputs that were served before the rows were learned; None if they are not known."""
    outputs = served_numbers(rows)
    if outputs is None:
        return None
    labels = labels_of(rows, ())
    bad = jackknifed(metric, labels, outputs)
    return Side(rows.select(names), outputs, labels, bad) if bad else None
