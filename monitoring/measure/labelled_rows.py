"""Rows as arrays: which have a label, their labels, and what the champion said or says of them."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import polars as pl

from headwater.spec.data.records import Output
from headwater.spec.pipeline import Task

__all__ = ["classes_of", "given", "labelled", "labels_of", "outputs_of", "sample", "served", "unlearned"]

_ALIKE = 100  # rows of about the same output


def labelled(frame: pl.DataFrame) -> pl.DataFrame:
    """Give the rows that have a ``label``; none where there is no such column."""
    return frame.filter(pl.col("label").is_not_null()) if "label" in frame.columns else frame[:0]


def sample(frame: pl.DataFrame, rows: int, drawn: np.random.Generator) -> pl.DataFrame:
    """Draw at most so many rows of a frame, in their order.

    Parameters
    ----------
    frame
        Where there are no more, it is given back itself and nothing is drawn.
    rows
        How many.
    drawn
        Moves on where rows are drawn.
    """
    if frame.height <= rows:
        return frame
    return frame[np.sort(drawn.choice(frame.height, rows, replace=False))]


def classes_of(known: pl.DataFrame, task: Task) -> list[str]:
    """Name the classes among labels, sorted; none where the task is not to tell classes."""
    return sorted({str(v) for v in known["label"].unique()}) if task == "multiclass" else []


def labels_of(known: pl.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Give labels as 64-bit floats, shape ``(rows,)``: places among the classes, -1 for another one."""
    if not classes:
        return known["label"].cast(pl.Float64).to_numpy()
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(str(value), -1) for value in known["label"]], dtype=np.float64)


def outputs_of(said: Sequence[Output], classes: Sequence[str]) -> np.ndarray:
    """Give outputs as 64-bit floats: shape ``(rows,)``, or a share for each class ``(rows, classes)``.

    Examples
    --------
    >>> outputs_of([{"up": 0.9, "down": 0.1}, {"up": 1.0}], ["down", "up"])
    array([[0.1, 0.9],
           [0. , 1. ]])
    """
    if not classes:
        return np.asarray(said, dtype=np.float64)
    shares = [{str(k): v for k, v in row.items()} if isinstance(row, dict) else {} for row in said]
    return np.array([[row.get(name, 0.0) for name in classes] for row in shares], dtype=np.float64)


def served(known: pl.DataFrame) -> np.ndarray | None:
    """Give what was served as one number a row, shape ``(rows,)``; None where a row lacks it."""
    if not _is_served(known) or not known["output"].dtype.is_numeric():
        return None
    return known["output"].cast(pl.Float64).to_numpy()


def given(
    rows: pl.DataFrame, classes: Sequence[str], predict: Callable[[pl.DataFrame], np.ndarray]
) -> np.ndarray:
    """Give what the champion served of rows; where that is not known, what it says of them.

    Parameters
    ----------
    rows
        Their ``output`` column, where there is one, holds a number or JSON text by class.
    classes
        As :func:`classes_of` names them.
    predict
        Asked for all rows where an output is missing.

    Returns
    -------
    np.ndarray
        As of :func:`outputs_of`.
    """
    if not _is_served(rows):
        return predict(rows)
    if not classes:
        return rows["output"].cast(pl.Float64).to_numpy()
    decoder = msgspec.json.Decoder(dict[str, float])
    return outputs_of([decoder.decode(text) for text in rows["output"].cast(pl.String)], classes)


def unlearned(known: pl.DataFrame, labels: np.ndarray) -> np.ndarray:
    """Give the chance that a row is positive, by what was served of it before anything learned it.

    The champion knows the labels that it learned by heart, in part by columns that tell nothing of new
    rows; scored on them, such columns would weigh too much. The share of positives among rows of about
    the same served output does not have that fault. Without served outputs the labels must do.

    Parameters
    ----------
    known
        Labelled rows, with ``output`` where that is known.
    labels
        Theirs, 0 or 1, shape ``(rows,)``.
    """
    outputs = served(known)
    if outputs is None:
        return labels
    order = np.argsort(outputs, kind="stable")
    chances = np.empty(len(labels))
    for part in np.array_split(order, max(len(order) // _ALIKE, 1)):
        chances[part] = labels[part].mean()
    return chances


def _is_served(rows: pl.DataFrame) -> bool:
    return "output" in rows.columns and not rows["output"].null_count()
