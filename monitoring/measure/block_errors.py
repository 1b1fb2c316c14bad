"""Standard errors over rows in the order of time, by blocks: rows that come together are alike.

A week of flights has seven days of weather, not six thousand. Taken for independent, its rows say that
everything moved, every week. So rows are taken together in blocks (Künsch, "The jackknife and the
bootstrap for general stationary observations", 1989). Of rows that were shuffled, blocks give about the
errors that single rows do; the greatest of several is a little more.
"""

import math

import numpy as np

__all__ = ["mean_errors", "move_errors", "parts"]

_COUNTS = (40, 20, 10, 5)  # of blocks: how long rows stay alike is not known
_LEAST = 5  # rows in a block
_MOST_WINDOWS = 50  # of the reference that a window is compared with


def parts(rows: int, count: int) -> np.ndarray:
    """Return the part of each row, of `count` parts of about equal length; shape ``(rows,)``.

    Examples
    --------
    >>> parts(7, 3)
    array([0, 0, 0, 1, 1, 2, 2])
    """
    return np.arange(rows) * count // max(rows, 1)


def mean_errors(values: np.ndarray) -> np.ndarray:
    """Compute the standard error of each column's mean: the greatest over several lengths of blocks.

    Parameters
    ----------
    values
        Rows in order of time, shape ``(rows, columns)``.

    Returns
    -------
    np.ndarray
        Shape ``(columns,)``.

    Examples
    --------
    >>> days = np.repeat(np.random.default_rng(0).normal(size=(10, 1)), 100, axis=0)
    >>> float(mean_errors(days)[0] / mean_errors(np.random.default_rng(0).permutation(days))[0]) > 4
    True
    """
    rows = len(values)
    errors = values.std(axis=0) / math.sqrt(max(rows, 1))
    for count in _COUNTS:
        size = rows // count
        if size >= _LEAST:
            means = values[: size * count].reshape(count, size, -1).mean(axis=1)
            errors = np.maximum(errors, means.std(axis=0, ddof=1) / math.sqrt(count))
    return np.asarray(errors)


def move_errors(reference: np.ndarray, window: np.ndarray, windows: int) -> np.ndarray:
    """Compute the standard error of the move of each column's mean from a reference to a window.

    A short window says little of how far means go: an hour knows nothing of other hours. So windows of
    its length in the reference are compared with each other, too.

    Parameters
    ----------
    reference, window
        Rows in order of time, shapes ``(rows, columns)``.
    windows
        How many windows as long as `window` the reference has.

    Returns
    -------
    np.ndarray
        Shape ``(columns,)``.
    """
    error = mean_errors(window)
    windows = min(windows, len(reference) // _LEAST, _MOST_WINDOWS)
    if windows > 1:
        means = np.stack([part.mean(axis=0) for part in np.array_split(reference, windows)])
        # The parts may have more rows than the window, or fewer: what that adds by luck is taken out.
        luck = reference.var(axis=0) * (windows / len(reference) - 1 / max(len(window), 1))
        between = np.maximum(means.var(axis=0, ddof=1) - luck, 0.0)
        error = np.maximum(error, np.sqrt(between))
    return np.asarray(np.hypot(mean_errors(reference), error))
