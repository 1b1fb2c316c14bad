"""Two windows, made ready to be looked at: drawn rows, the champion's outputs, labels and relations."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from headwater.monitoring.attention.relations import Relations, relate
from headwater.monitoring.measure.columns import is_number
from headwater.monitoring.measure.labelled_rows import (
    classes_of,
    given,
    labelled,
    labels_of,
    outputs_of,
    sample,
    served,
    unlearned,
)
from headwater.monitoring.measure.losses import GROUPS, Side, badness, jackknifed
from headwater.spec.data.feature import FeatureKind
from headwater.spec.data.records import Output
from headwater.spec.pipeline import Metric, Task

__all__ = ["Predict", "WatchedChampion", "WindowPair", "prepare"]

_ROWS = 4_000  # drawn of each window, for outputs and relations
_WEIGHTED = 20_000  # drawn of the reference with what was served of it, to be weighted

Predict = Callable[[pl.DataFrame], Sequence[Output]]
"""The champion: an output for each row of a frame with a column for each feature."""


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
    """All that a closer look needs.

    Parameters
    ----------
    features
        The columns of all frames.
    metric
        The pipeline's first one.
    predict
        The champion's outputs as an array; other columns than features are not looked at.
    reference, current
        At most 4,000 rows of each window.
    before, now
        The champion's outputs for them.
    labelled
        At most 4,000 labelled rows of the reference, on which columns are replaced. Labels of a binary
        task are chances, by what was served before anything learned the row.
    weighted
        Up to 20,000 such rows with what was served of them and their labels, to be weighted; without
        served outputs `labelled` again.
    relations
        How the columns hang together.
    drawn
        Draws whatever is drawn.
    """

    features: tuple[FeatureKind, ...]
    metric: Metric
    predict: Callable[[pl.DataFrame], np.ndarray]
    reference: pl.DataFrame
    current: pl.DataFrame
    before: np.ndarray
    now: np.ndarray
    labelled: Side
    weighted: Side
    relations: Relations
    drawn: np.random.Generator

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
    drawn = np.random.default_rng(seed)
    names = [kind.name for kind in features]
    known = labelled(reference)
    first, second = sample(reference, _ROWS, drawn), sample(current, _ROWS, drawn)
    few = first if known.height == reference.height else sample(known, _ROWS, drawn)
    if few.height < GROUPS * 2:
        return "not judged: the reference has too few labels"
    classes = classes_of(few, task)

    def outputs(frame: pl.DataFrame) -> np.ndarray:
        return outputs_of(predict(frame.select(names)), classes)

    labels, said = labels_of(few, classes), outputs(few)
    if badness(metric, labels, said, np.ones(few.height)) is None:
        return f"not judged: {metric} is not defined on the reference"
    if task == "binary":
        labels = unlearned(few, labels)
    bad = jackknifed(metric, labels, said)
    if bad is None:
        return f"not judged: {metric} is not defined on parts of the reference"
    side = Side(few.select(names), said, labels, bad)
    before = said if few is first else outputs(first)
    now = given(second, classes, outputs)
    first, second = side.frame if few is first else first.select(names), second.select(names)
    by = said if said.ndim == 1 else said.max(axis=1)
    relations = relate(features, first, second, side.frame, by, windows)
    many = sample(known, _WEIGHTED, drawn)
    weighted = None if classes else _served_side(many, names, metric)
    return WindowPair(
        features=features,
        metric=metric,
        predict=outputs,
        reference=first,
        current=second,
        before=before,
        now=now,
        labelled=side,
        weighted=weighted or side,
        relations=relations,
        drawn=drawn,
    )


def _served_side(known: pl.DataFrame, names: Sequence[str], metric: Metric) -> Side | None:
    """Take what was served of rows before anything learned them; None where that is not known."""
    outputs = served(known)
    if outputs is None:
        return None
    labels = labels_of(known, ())
    bad = jackknifed(metric, labels, outputs)
    return Side(known.select(names), outputs, labels, bad) if bad else None
