"""Every window's verdicts cost a small part of Evidently's preset, and agree with it on each column."""

import time
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.claim import Outcome, say
from benchmarks.monitoring.preset import preset
from headwater.monitoring.attention.attention import Attention, attend, overruled
from headwater.monitoring.attention.window_pair import WatchedChampion
from headwater.spec.data.feature import Feature

__all__ = ["measure"]

_BOUND = 0.25
_MOVES = (0.0, 0.3, 0.0, 0.1, 0.0, 0.06, 0.0)  # standard deviations, of column after column


class _Shape(NamedTuple):
    rows: int
    columns: int
    pairs: int


_SHAPES = (_Shape(10_000, 20, 7), _Shape(10_000, 200, 3))
_SHORT_SHAPES = (_Shape(1_500, 5, 1),)


class _Measured(NamedTuple):
    ours_s: float
    theirs_s: float
    differing: int
    drifted: int


class _Windows(NamedTuple):
    """A reference and a current window, also as pandas, and a model of them."""

    reference: pl.DataFrame
    current: pl.DataFrame
    pandas: tuple[pd.DataFrame, pd.DataFrame]
    weights: np.ndarray

    def predict(self, frame: pl.DataFrame) -> list[float]:
        """Give the probabilities of a logistic regression."""
        texts = pl.selectors.string().str.strip_prefix("v").cast(pl.Float64)
        values = frame.with_columns(texts).to_numpy()
        return list(1 / (1 + np.exp(-(values @ self.weights))))


def measure(*, short: bool) -> Outcome:
    """Compare CPU time with DataDriftPreset alone on the same frames, imports excluded (four minutes).

    What is timed of ours is all that a monitor's window costs: its columns, and what needs somebody,
    once as the newest window and once with labels, when it is mature. Columns are numbers, numbers with
    a long tail, and texts; three in seven moved, some of them near the line. The ratio is the worse of
    the shapes, each the median of its pairs, interleaved: seven of 20 columns, three of 200, for which
    Evidently takes half a minute.
    Evidently is given the frame in pandas, and not asked for its page.
    """
    numbers: dict[str, object] = {}
    ratios: list[float] = []
    differing = 0
    _measured(_windows(1_200, 5))  # imports
    for rows, columns, turns in _SHORT_SHAPES if short else _SHAPES:
        windows = _windows(rows, columns)
        pairs = [_measured(windows) for _ in range(turns)]
        ratio = float(np.median([pair.ours_s / pair.theirs_s for pair in pairs]))
        say(f"{rows} by {columns}: {ratio:.3f}")
        ratios.append(ratio)
        differing += sum(pair.differing for pair in pairs)
        numbers[f"{rows}x{columns}"] = {
            "ratio": round(ratio, 4),
            "ours_s": round(float(np.median([pair.ours_s for pair in pairs])), 3),
            "evidently_s": round(float(np.median([pair.theirs_s for pair in pairs])), 3),
            "pairs": turns,
            "drifted": pairs[0].drifted,
        }
    ratio = max(ratios)
    holds = ratio <= _BOUND and differing == 0
    return Outcome(
        ratio=ratio, bound=_BOUND, holds=holds, numbers={"verdicts_that_differ": differing, **numbers}
    )


def _windows(rows: int, columns: int) -> _Windows:
    drawn = np.random.default_rng(columns)
    weights = drawn.normal(size=columns) / np.sqrt(columns)
    frames = [_frame(drawn, rows, weights, moved=moved) for moved in (False, True)]
    first, second = (frame.drop("label", "output").to_pandas() for frame in frames)
    windows = _Windows(frames[0], frames[1], (first, second), weights)
    served = [
        f.with_columns(output=pl.Series(windows.predict(f.drop("label", "output")))) for f in frames
    ]
    return windows._replace(reference=served[0], current=served[1])


def _frame(drawn: np.random.Generator, rows: int, weights: np.ndarray, *, moved: bool) -> pl.DataFrame:
    """Draw columns that go together; of five, one has a long tail, and one is text."""
    values = drawn.normal(size=(rows, len(weights))) + 0.5 * drawn.normal(size=(rows, 1))
    if moved:
        values += np.resize(_MOVES, len(weights))
    columns: dict[str, np.ndarray | pl.Series] = {}
    for i, column in enumerate(values.T):
        columns[f"x{i}"] = np.exp(column) if i % 5 == 3 else column
        if i % 5 == 4:
            codes = np.digitize(column, np.linspace(-2, 2, 7))
            columns[f"x{i}"] = pl.Series([f"v{code}" for code in codes])
    chance = 1 / (1 + np.exp(-values @ weights))
    return pl.DataFrame(columns).with_columns(label=pl.Series(drawn.random(rows) < chance), output=0.0)


def _measured(windows: _Windows) -> _Measured:
    started_s = time.process_time()
    ours = _ours(windows)
    middle_s = time.process_time()
    theirs = preset(*windows.pandas).columns
    ended_s = time.process_time()
    verdicts = {column.name: column.drifted for column in ours.columns}
    differing = sum(verdicts.get(name) != drifted for name, drifted in theirs.items())
    return _Measured(middle_s - started_s, ended_s - middle_s, differing, sum(verdicts.values()))


def _ours(windows: _Windows) -> Attention:
    """Judge a window twice, as the monitor does: as the newest one, and once its labels are due."""
    columns = windows.reference.drop("label", "output").schema
    ask = partial(
        attend,
        windows.reference,
        windows.current,
        WatchedChampion(
            features=tuple(
                Feature(n, str if kind == pl.String else float) for n, kind in columns.items()
            ),
            task="binary",
            metric="roc_auc",
            predict=windows.predict,
            least=200,
        ),
    )
    return overruled(ask(), ask(mature=windows.current))
