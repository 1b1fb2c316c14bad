"""Shifts to inject into windows of a labelled stream, by family, and what each costs."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl

from headwater.spec.data.feature import RequestFeature
from headwater.spec.updating.monitoring import Monitoring

__all__ = [
    "FIGURE",
    "TUNING",
    "Champion",
    "Family",
    "Predict",
    "Random",
    "Shifted",
    "Stream",
    "auc",
    "harm_of",
    "is_harmful",
]

_HARM = 0.01
_GROUPS = 20

Predict = Callable[[pl.DataFrame], list[float]]
Random = np.random.Generator


class Stream(NamedTuple):
    """A labelled stream, its rows shuffled by whoever draws from it, and how its example is watched.

    `learned` and `earlier` are how many rows a champion has learned, and has served long ago; `week` is
    how many come in a window of the monitor.
    """

    name: str
    rows: pl.DataFrame
    features: tuple[RequestFeature, ...]
    monitoring: Monitoring
    learned: int
    earlier: int
    week: int

    @property
    def drawn(self) -> int:
        """Rows of the newest window, and of those whose labels are judged."""
        return self.week * (1 + self.monitoring.label_windows)


class Champion(NamedTuple):
    """A model, the rows that it learned, its first windows without a shift, and all that is to come."""

    stream: Stream
    predict: Predict
    reference: pl.DataFrame
    earlier: pl.DataFrame
    pool: pl.DataFrame

    def served(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Give rows with what the champion says of them."""
        return rows.with_columns(output=pl.Series(self.predict(rows)))


class Shifted(NamedTuple):
    """A window with a shift in it, the same rows without, and what weighs them so that they shifted.

    Where other rows come, the rows without the shift are all that can come, the shift is their weights,
    and the window is drawn by these.
    """

    window: pl.DataFrame
    before: pl.DataFrame
    weights: np.ndarray | None = None


def harm_of(window: pl.DataFrame, shifted: Shifted) -> tuple[float, float]:
    """Give what the shift costs on the same rows, and its standard error by a jackknife over them."""
    before = _aucs(shifted.before)
    after = _aucs(window) if shifted.weights is None else _aucs(shifted.before, shifted.weights)
    lost = before - after
    parts = lost[1:]
    return float(lost[0]), float(np.sqrt((_GROUPS - 1) / _GROUPS * ((parts - parts.mean()) ** 2).sum()))


def _aucs(rows: pl.DataFrame, weights: np.ndarray | None = None) -> np.ndarray:
    """Give the ROC AUC of all rows, and of them without each twentieth."""
    weights = np.ones(rows.height) if weights is None else weights
    group = np.arange(rows.height) % _GROUPS
    order = np.argsort(rows["output"].to_numpy(), kind="stable")
    labels, outputs = rows["label"].to_numpy()[order], rows["output"].to_numpy()[order]
    kept = [group[order] != left_out for left_out in range(-1, _GROUPS)]
    return np.array([auc(labels[k], outputs[k], weights[order][k]) for k in kept])


def auc(labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Compute the area under the curve, ties counted half; scikit-learn takes four times as long."""
    weights = np.ones(len(labels)) if weights is None else weights
    order = np.argsort(outputs, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(outputs[order]) > 0])
    ups, downs = (np.add.reduceat((weights * is_)[order], starts) for is_ in (labels, ~labels))
    return float((ups * (np.cumsum(downs) - downs / 2)).sum() / (ups.sum() * downs.sum()))


def is_harmful(harm: float, error: float) -> bool | None:
    """Tell harmful from benign; None in the band between."""
    if harm >= _HARM and harm > 2 * error:
        return True
    return False if harm < _HARM and harm <= 2 * error else None


Family = Callable[[Champion, pl.DataFrame, Random], Shifted]


def _number(champion: Champion, drawn: Random) -> str:
    return str(drawn.choice([k.name for k in champion.stream.features if k.dtype == "float"]))


def _values(frame: pl.DataFrame, name: str) -> np.ndarray:
    return frame[name].fill_null(np.nan).to_numpy().copy()


def _with(frame: pl.DataFrame, **columns: np.ndarray | pl.Series) -> Shifted:
    series = [pl.Series(name, values) for name, values in columns.items()]
    series = [s.fill_nan(None) if s.dtype.is_float() else s for s in series]
    return Shifted(frame.with_columns(series), frame)


def _nothing(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    del champion, drawn
    return Shifted(frame, frame)


def _scaled(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    name = _number(champion, drawn)
    return _with(
        frame, **{name: _values(frame, name) * float(drawn.choice([0.45, 0.8, 1.3, 2.2, 10.0]))}
    )


def _noised(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    name = _number(champion, drawn)
    values = _values(frame, name)
    noise = (
        drawn.normal(size=len(values)) * np.nanstd(values) * float(drawn.choice([0.2, 0.6, 1.5, 3.0]))
    )
    return _with(frame, **{name: values + noise})


def _nulled(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    name = _number(champion, drawn)
    values = _values(frame, name)
    values[drawn.random(len(values)) < float(drawn.choice([0.1, 0.4, 0.7, 1.0]))] = np.nan
    return _with(frame, **{name: values})


def _reversed(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    """Turn some of a column's values around its mean."""
    name = _number(champion, drawn)
    values = _values(frame, name)
    hit = drawn.random(len(values)) < float(drawn.choice([0.1, 0.4, 1.0]))
    return _with(frame, **{name: np.where(hit, 2 * np.nanmean(values) - values, values)})


def _rounded(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    """Tell a column in steps of so many standard deviations only."""
    name = _number(champion, drawn)
    values = _values(frame, name)
    step = float(drawn.choice([0.3, 1.0, 3.0])) * max(float(np.nanstd(values)), 1e-9)
    return _with(frame, **{name: np.round(values / step) * step})


def _blended(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    """Let a column leak into another one."""
    names = [k.name for k in champion.stream.features if k.dtype == "float"]
    name, other = (str(one) for one in drawn.choice(names, 2, replace=False))
    values, leaks = _values(frame, name), _values(frame, other)
    share = float(drawn.choice([0.2, 0.6, 0.9]))
    leaks = (leaks - np.nanmean(leaks)) / max(float(np.nanstd(leaks)), 1e-9)
    leaks = np.nanmean(values) + np.nan_to_num(leaks) * np.nanstd(values)
    return _with(frame, **{name: (1 - share) * values + share * leaks})


def _redrawn(champion: Champion, weights: np.ndarray, drawn: Random) -> Shifted:
    """Draw a window of other rows."""
    weights = np.nan_to_num(weights, nan=float(np.nanmedian(weights)))
    chances = weights / weights.sum()
    at = drawn.choice(champion.pool.height, champion.stream.drawn, p=chances)
    return Shifted(champion.pool[at], champion.pool, weights)


def _tilted(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    del frame
    values = _values(champion.pool, _number(champion, drawn))
    spread = (values - np.nanmean(values)) / max(float(np.nanstd(values)), 1e-9)
    return _redrawn(
        champion, np.exp(np.clip(spread, -2, 2) * float(drawn.choice([-0.8, 0.5, 1.0]))), drawn
    )


def _flipped(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    """Flip labels anywhere."""
    del champion
    flip = drawn.random(frame.height) < float(drawn.choice([0.0, 0.02, 0.08, 0.2]))
    return Shifted(frame.with_columns(label=frame["label"] != pl.Series(flip)), frame)


def _offset(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    name = _number(champion, drawn)
    values = _values(frame, name)
    return _with(
        frame, **{name: values + np.nanstd(values) * float(drawn.choice([-2, -0.7, 0.3, 1.0, 3.0]))}
    )


def _stuck(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    """Hold a value of the window from some row on."""
    name = _number(champion, drawn)
    values = _values(frame, name)
    start = int(len(values) * float(drawn.choice([0.0, 0.3, 0.7])))
    values[start:] = drawn.choice(values[~np.isnan(values)])
    return _with(frame, **{name: values})


def _swapped(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    names = [k.name for k in champion.stream.features if k.dtype == "float"]
    first, second = (str(name) for name in drawn.choice(names, 2, replace=False))
    return _with(frame, **{first: _values(frame, second), second: _values(frame, first)})


def _permuted(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    name = _number(champion, drawn)
    values = _values(frame, name)
    hit = np.flatnonzero(drawn.random(len(values)) < float(drawn.choice([0.5, 1.0])))
    values[hit] = values[drawn.permutation(hit)]
    return _with(frame, **{name: values})


def _clipped(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    """Saturate a column below, or above, one of its quantiles."""
    name = _number(champion, drawn)
    values = _values(frame, name)
    edge = np.nanquantile(values, float(drawn.choice([0.25, 0.5, 0.75])))
    return _with(
        frame, **{name: np.maximum(values, edge) if drawn.random() < 0.5 else np.minimum(values, edge)}
    )


def _unseen(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    """Write the most frequent values of a category in another way; an offset where there is none."""
    names = [k.name for k in champion.stream.features if k.dtype == "str"]
    if not names:
        return _offset(champion, frame, drawn)
    name = str(drawn.choice(names))
    common = frame[name].value_counts(sort=True)[name][: int(drawn.choice([1, 3, 10]))]
    values = (
        pl.when(pl.col(name).is_in(common.to_list())).then(pl.col(name) + "-new").otherwise(pl.col(name))
    )
    return Shifted(frame.with_columns(values.alias(name)), frame)


def _reweighted(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    """Draw more rows of one subpopulation: a category, or a half by some column."""
    del frame
    kinds = champion.stream.features
    kind = kinds[int(drawn.integers(len(kinds)))]
    if kind.dtype == "str":
        chosen = str(drawn.choice(champion.pool[kind.name].to_numpy()))
        inside = (champion.pool[kind.name] == chosen).to_numpy()
    else:
        values = _values(champion.pool, kind.name)
        inside = values > np.nanmedian(values)
    return _redrawn(champion, np.where(inside, float(drawn.choice([2.0, 4.0, 8.0])), 1.0), drawn)


def _regional(champion: Champion, frame: pl.DataFrame, drawn: Random) -> Shifted:
    """Flip labels in the upper part of some column."""
    values = _values(frame, _number(champion, drawn))
    inside = values > np.nanquantile(values, float(drawn.choice([0.6, 0.8, 0.9])))
    flip = inside & (drawn.random(frame.height) < float(drawn.choice([0.0, 0.1, 0.3, 0.6])))
    return Shifted(frame.with_columns(label=frame["label"] != pl.Series(flip)), frame)


TUNING: dict[str, Family] = {
    "nothing": _nothing,
    "scaled": _scaled,
    "noised": _noised,
    "nulled": _nulled,
    "reversed": _reversed,
    "rounded": _rounded,
    "blended": _blended,
    "tilted": _tilted,
    "concept-flipped": _flipped,
}
"""Families, with seeds below 2,000, that thresholds were chosen on."""

FIGURE: dict[str, Family] = {
    "nothing": _nothing,
    "offset": _offset,
    "stuck": _stuck,
    "swapped": _swapped,
    "permuted": _permuted,
    "clipped": _clipped,
    "unseen": _unseen,
    "reweighted": _reweighted,
    "concept-regional": _regional,
}
"""Families, with seeds from 2,000, of the printed figure."""
