"""Rows as arrays: their labels, and the outputs that the champion served or predicts."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import polars as pl

from headwater.spec.data.records import Output
from headwater.spec.pipeline import Task

__all__ = [
    "classes_of",
    "labelled",
    "labels_of",
    "outputs_of",
    "positive_chances",
    "sample",
    "served_numbers",
    "served_or_predicted",
]

_ALIKE = 100  # rows of about the same output


def labelled(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that have a ``label``; none if there is no such column."""
    return frame.filter(pl.col("label").is_not_null()) if "label" in frame.columns else frame[:0]


def sample(frame: pl.DataFrame, rows: int, rng: np.random.Generator) -> pl.DataFrame:
    """Draw at most so many rows of a frame, in their order.

    Parameters
    ----------
    frame
        If it has no more rows, the frame itself is returned, and nothing is drawn.
    rows
        How many.
    rng
        Draws the rows.
    """
    if frame.height <= rows:
        return frame
    return frame[np.sort(rng.choice(frame.height, rows, replace=False))]


def classes_of(rows: pl.DataFrame, task: Task) -> list[str]:
    """Return the classes among labels, sorted; none if the task has no classes."""
    return sorted({str(v) for v in rows["label"].unique()}) if task == "multiclass" else []


def labels_of(rows: pl.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Return labels as 64-bit floats, shape ``(rows,)``: indices of classes, -1 for any other class."""
    if not classes:
        return rows["label"].cast(pl.Float64).to_numpy()
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(str(value), -1) for value in rows["label"]], dtype=np.float64)


def outputs_of(outputs: Sequence[Output], classes: Sequence[str]) -> np.ndarray:
    """Return outputs as 64-bit floats: shape ``(rows,)``, or shares by class ``(rows, classes)``.

    Examples
    --------
    >>> outputs_of([{"up": 0.9, "down": 0.1}, {"up": 1.0}], ["down", "up"])
    array([[0.1, 0.9],
           [0. , 1. ]])
    """
    if not classes:
        return np.asarray(outputs, dtype=np.float64)
    shares = [{str(k): v for k, v in row.items()} if isinstance(row, dict) else {} for row in outputs]
    return np.array([[row.get(name, 0.0) for name in classes] for row in shares], dtype=np.float64)


def served_numbers(rows: pl.DataFrame) -> np.ndarray | None:
    """Return the served output of each row, shape ``(rows,)``; None if a row has no number."""
    if not _is_served(rows) or not rows["output"].dtype.is_numeric():
        return None
    return rows["output"].cast(pl.Float64).to_numpy()


def served_or_predicted(
    rows: pl.DataFrame, classes: Sequence[str], predict: Callable[[pl.DataFrame], np.ndarray]
) -> np.ndarray:
    """Return the outputs that were served for rows; if one is missing, predict all of them.

    Parameters
    ----------
    rows
        The ``output`` column, if there is one, holds a number, or shares by class as JSON text.
    classes
        As :func:`classes_of` names them.
    predict
        The champion's, called if an output is missing.

    Returns
    -------
    np.ndarray
        As :func:`outputs_of` returns them.
    """
    if not _is_served(rows):
        return predict(rows)
    if not classes:
        return rows["output"].cast(pl.Float64).to_numpy()
    decoder = msgspec.json.Decoder(dict[str, float])
    return outputs_of([decoder.decode(text) for text in rows["output"].cast(pl.String)], classes)


def positive_chances(rows: pl.DataFrame, labels: np.ndarray) -> np.ndarray:
    """Return the chance that each row is positive, by the output that was served before it was learned.

    The champion fits the labels that it learned, in part by columns that say nothing about new rows. If
    it were scored on those labels, such columns would weigh too much. The share of positives among rows
    of about the same served output has no such fault. Without served outputs, the labels are returned.

    Parameters
    ----------
    rows
        Labelled rows, with ``output`` if that is known.
    labels
        Theirs, 0 or 1, shape ``(rows,)``.
    """
    outputs = served_numbers(rows)
    if outputs is None:
        return labels
    order = np.argsort(outputs, kind="stable")
    chances = np.empty(len(labels))
    for part in np.array_split(order, max(len(order) // _ALIKE, 1)):
        chances[part] = labels[part].mean()
    return chances


def _is_served(rows: pl.DataFrame) -> bool:
    return "output" in rows.columns and not rows["output"].null_count()
