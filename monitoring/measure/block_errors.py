"""Rows that come together are alike: errors of what is counted over rows in the order of time.

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
    """Give the part of each row, of so many that are alike in length, oldest first; shape ``(rows,)``.

    Examples
    --------
    >>> parts(7, 3)
    array([0, 0, 0, 1, 1, 2, 2])
    """
    return np.arange(rows) * count // max(rows, 1)


def mean_errors(values: np.ndarray) -> np.ndarray:
    """Give the standard error of each column's mean: the greatest over several lengths of blocks.

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


def move_errors(before: np.ndarray, now: np.ndarray, windows: int) -> np.ndarray:
    """Give the standard error of how far each column's mean moved between a reference and a window.

    A window that is short says little of how far means go: an hour knows nothing of other hours. What
    windows of its length in the reference differ by does.

    Parameters
    ----------
    before, now
        Rows in order of time, shapes ``(rows, columns)``.
    windows
        How many windows as long as `now` the reference has.

    Returns
    -------
    np.ndarray
        Shape ``(columns,)``.
    """
    error = mean_errors(now)
    windows = min(windows, len(before) // _LEAST, _MOST_WINDOWS)
    if windows > 1:
        means = np.stack([part.mean(axis=0) for part in np.array_split(before, windows)])
        # The parts may have more rows than the window, or fewer: what that adds by luck is taken out.
        luck = before.var(axis=0) * (windows / len(before) - 1 / max(len(now), 1))
        between = np.maximum(means.var(axis=0, ddof=1) - luck, 0.0)
        error = np.maximum(error, np.sqrt(between))
    return np.asarray(np.hypot(mean_errors(before), error))
