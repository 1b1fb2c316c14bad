"""Which change needs somebody: most are benign, and a count of drifted columns does not tell.

What each change would cost is played through on the labelled reference, in one of two ways:

- *The world moved*: other rows came, and labels follow features as before (covariate shift). Then the
  reference, weighted by the ratio of densities, gives the metric to expect (Shimodaira, "Improving
  predictive inference under covariate shift", 2000).
- *The column moved*: a sensor is stuck, scaled, swapped, noisy or silent, and labels follow what it no
  longer says. Then the column's values in the reference are replaced by what it would say now, and the
  champion is scored on them, as permutation importance does (Breiman, "Random forests", 2001).

Which one it is, the other columns tell. Where the world moved along a column, the other columns move
with it by a predictable amount; where a column moved alone, they do not (an "intervention" on one
variable: Peters, Janzing and Schölkopf, "Elements of causal inference", 2017, chapter 6). How much a
column still says is told by how well the others still predict its rank.
All of that is linear algebra on normal scores (a Gaussian copula) of at most a few thousand rows, since
it is done for every window.

With mature labels the measured loss stands beside the estimate, each weighted by its precision, and a
loss that no moved column explains is a changed concept.

Limits: a column that is independent of all others and keeps its distribution can be shuffled unseen
until labels come. Whether such a column moved alone cannot be known; it is taken to be so where it is a
number.
Only binary outputs are measured by the benchmark; regression and classes go through the same code.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl

from headwater.monitoring.drift import ColumnDrift, column_drift, drift
from headwater.spec.evidence import Finding, Verdict
from headwater.spec.feature import Feature, FeatureKind
from headwater.spec.pipeline import Metric, Task
from headwater.spec.records import Output

__all__ = ["Attention", "attend"]

_ROWS = 4_000  # drawn of each window, for outputs and relations
_LABELLED = 100_000  # drawn of labelled rows, for the metric
_WEIGHTED = 20_000  # drawn of the reference with what was served of it, to be weighted
_CLOSER = 8  # columns that are played through
_SCREENED = 40  # columns whose weight in the outputs is tried, to choose these
_HARM = 0.01  # loss of the metric that somebody should act on
_CALL = 0.007  # estimated loss from which a column is called harmful
_CALL_WORLD = 0.011  # the same where other rows came: one column's density ratio is a coarse weight
_ERRORS = 2.0  # standard errors
_GROUPS = 20  # of the jackknife
_RANKS = 0.06  # distance of distribution functions from which a column is looked at
_BROKEN = 0.08  # rank correlation that a column must have lost before its relation is called broken
_OPTIMISM = 0.02  # by how much a metric on learned rows may flatter
_OTHERS = 0.007  # standard deviation between versions of one learner, trained alike
_MODEL_ERROR = 0.25  # share of an estimated effect that the estimate may be wrong by

_Predict = Callable[[pl.DataFrame], Sequence[Output]]
_Floats = np.ndarray


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """What was found between two windows.

    Parameters
    ----------
    verdict
        The worst of the findings; None where there was too little to judge.
    findings
        What moved, the most harmful first.
    columns
        Every column that was judged by itself, as Evidently would.
    notes
        What could not be judged, and why.
    """

    verdict: Verdict | None = None
    findings: tuple[Finding, ...] = ()
    columns: tuple[ColumnDrift, ...] = ()
    notes: tuple[str, ...] = ()


class _Loss(NamedTuple):
    """Loss of the metric, above 0 is worse, and its standard error."""

    value: float
    error: float


class _Badness(NamedTuple):
    """A metric, turned so that more is worse: on all rows, and without each of twenty parts of them."""

    value: float
    parts: _Floats

    @property
    def error(self) -> float:
        """Standard error by the jackknife."""
        spread = float(((self.parts - self.parts.mean()) ** 2).sum())
        return math.sqrt((_GROUPS - 1) / _GROUPS * spread)


class _Side(NamedTuple):
    """A labelled sample, the champion's outputs for it, and how bad they are."""

    frame: pl.DataFrame
    outputs: _Floats
    labels: _Floats
    badness: _Badness


class _Case(NamedTuple):
    """All that a closer look needs."""

    features: tuple[FeatureKind, ...]
    predict: Callable[[pl.DataFrame], _Floats]
    metric: Metric
    reference: pl.DataFrame
    current: pl.DataFrame
    outputs: tuple[_Floats, _Floats]
    labelled: _Side
    weighted: _Side
    relations: "_Relations"
    drawn: np.random.Generator


class _Closer(NamedTuple):
    """What was found about one column; `broken` if only its relations told."""

    name: str
    output_effect: float
    loss: _Loss
    column: pl.Series | None
    kept: float
    alone: bool
    broken: bool


def attend(  # noqa: PLR0913 - named ones
    reference: pl.DataFrame,
    current: pl.DataFrame,
    *,
    features: Sequence[FeatureKind],
    task: Task,
    metric: Metric,
    predict: _Predict,
    least: int,
    seed: int = 0,
    mature: pl.DataFrame | None = None,
    earlier: pl.DataFrame | None = None,
) -> Attention:
    """Say which change between two windows needs somebody.

    Parameters
    ----------
    reference
        A column for each feature and ``label``: what the champion has learned. Its ``output`` column,
        where there is one, is what was served before anything learned the row; without it, and without
        `earlier`, measured losses are taken for optimism up to 0.02.
    current
        The newest predictions; labels are not looked at. Here and below, an ``output`` column says what
        the champion served; without it, the champion is asked again.
    features, task
        As the pipeline declares them.
    metric
        The pipeline's first one.
    predict
        The champion: outputs for rows with a column for each feature.
    least
        Fewer rows than this in a window are ``insufficient_data``.
    seed
        Of the rows that are drawn.
    mature
        The newest window whose labels are all due. Rows with ``label`` and ``output`` are enough.
    earlier
        As `mature`: rows that the same champion had not learned either, and with which `mature` is best
        compared: its mature windows so far. Without them what was served of the reference must do, most
        of it by other versions.

    Returns
    -------
    Attention
        Its verdict is None where it could not be judged; the notes say why.
    """
    few = [
        f"insufficient_data: {frame.height} rows in the {which} window, fewer than {least}"
        for which, frame in (("reference", reference), ("current", current))
        if frame.height < max(least, 2)
    ]
    if few:
        return Attention(notes=tuple(few))
    columns, notes = drift(reference, current, features)
    usable = tuple(k for k in features if k.name in reference.columns and k.name in current.columns)
    if len(usable) < len(features):
        return Attention(columns=tuple(columns), notes=(*notes, "not judged: a window lacks a feature"))
    drawn = np.random.default_rng(seed)
    case = _case(reference, current, usable, task, metric, predict, drawn)
    if isinstance(case, str):
        return Attention(columns=tuple(columns), notes=(*notes, case))
    looked, skipped = _look(case, columns)
    findings = [*_column_findings(case, columns, looked), *skipped]
    findings += _joint(case, looked)
    findings += _output(case, task)
    if mature is not None:
        measured, said = _measured(case, reference, mature, earlier, task, predict, least)
        findings = _with_labels(case, findings, measured)
        findings += _label(reference, mature, task)
        notes = [*notes, *said]
    return _attention(findings, columns, notes)


def _attention(
    findings: Sequence[Finding], columns: Sequence[ColumnDrift], notes: Sequence[str]
) -> Attention:
    order: tuple[Verdict, ...] = ("act", "watch", "benign")
    ranked = sorted(findings, key=lambda f: (order.index(f.verdict), -(f.metric_effect or 0.0)))
    verdict: Verdict = ranked[0].verdict if ranked else "benign"
    return Attention(verdict=verdict, findings=tuple(ranked), columns=tuple(columns), notes=tuple(notes))


# What the champion says, and how good it is.


def _case(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    features: tuple[FeatureKind, ...],
    task: Task,
    metric: Metric,
    predict: _Predict,
    drawn: np.random.Generator,
) -> _Case | str:
    names = [kind.name for kind in features]
    known = _known(reference)
    first, second = _sample(reference, _ROWS, drawn), _sample(current, _ROWS, drawn)
    served, known = known, first if known.height == reference.height else _sample(known, _ROWS, drawn)
    if known.height < _GROUPS * 2:
        return "not judged: the reference has too few labels"
    classes = sorted({str(v) for v in known["label"].unique()}) if task == "multiclass" else []

    def outputs(frame: pl.DataFrame) -> _Floats:
        return _outputs(predict(frame.select(names)), classes)

    labels, given = _labels(known["label"], classes), outputs(known)
    if _badness(metric, labels, given, np.ones(known.height)) is None:
        return f"not judged: {metric} is not defined on the reference"
    if task == "binary":
        labels = _unlearned(known, labels)
    badness = _jackknifed(metric, labels, given)
    if badness is None:
        return f"not judged: {metric} is not defined on parts of the reference"
    both = (given if known is first else outputs(first), _given(second, classes, outputs))
    side = _Side(known.select(names), given, labels, badness)
    first, second = side.frame if known is first else first.select(names), second.select(names)
    by = given if given.ndim == 1 else given.max(axis=1)
    relations = _relations(features, first, second, side.frame, by)
    served = _sample(served, _WEIGHTED, drawn)
    weighted = None if classes else _served_side(served, names, metric)
    return _Case(
        features, outputs, metric, first, second, both, side, weighted or side, relations, drawn
    )


def _served_side(known: pl.DataFrame, names: Sequence[str], metric: Metric) -> _Side | None:
    """Take what was served of rows before anything learned them; None where that is not known."""
    if not _has_outputs(known):
        return None
    outputs, labels = _served(known["output"], ()), _labels(known["label"], ())
    badness = _jackknifed(metric, labels, outputs)
    return _Side(known.select(names), outputs, labels, badness) if badness else None


def _has_outputs(known: pl.DataFrame) -> bool:
    if "output" not in known.columns or known["output"].null_count():
        return False
    return known["output"].dtype.is_numeric()


def _sample(frame: pl.DataFrame, rows: int, drawn: np.random.Generator) -> pl.DataFrame:
    if frame.height <= rows:
        return frame
    return frame[np.sort(drawn.choice(frame.height, rows, replace=False))]


def _outputs(given: Sequence[Output], classes: Sequence[str]) -> _Floats:
    """Make an array of outputs: one number a row, or a share for each class."""
    if not classes:
        return np.asarray(given, dtype=np.float64)
    shares = [{str(k): v for k, v in row.items()} if isinstance(row, dict) else {} for row in given]
    return np.array([[row.get(name, 0.0) for name in classes] for row in shares], dtype=np.float64)


def _given(
    rows: pl.DataFrame, classes: Sequence[str], predict: Callable[[pl.DataFrame], _Floats]
) -> _Floats:
    """Give what the champion served of rows; where that is not known, what it says of them."""
    if "output" not in rows.columns or rows["output"].null_count():
        return predict(rows)
    return _served(rows["output"], classes)


def _labels(labels: pl.Series, classes: Sequence[str]) -> _Floats:
    if not classes:
        return labels.cast(pl.Float64).to_numpy()
    index = {name: i for i, name in enumerate(classes)}
    return np.array([index.get(str(value), -1) for value in labels], dtype=np.float64)


def _unlearned(known: pl.DataFrame, labels: _Floats) -> _Floats:
    """Give the chance that a row is positive, by what was served of it before anything learned it.

    The champion knows the labels that it learned by heart, in part by columns that tell nothing of new
    rows; scored on them, such columns would weigh too much. The share of positives among rows of about
    the same served output does not have that fault. Without served outputs the labels must do.
    """
    if not _has_outputs(known):
        return labels
    order = np.argsort(known["output"].to_numpy(), kind="stable")
    chances = np.empty(len(labels))
    for part in np.array_split(order, max(len(order) // 100, 1)):
        chances[part] = labels[part].mean()
    return chances


def _badness(metric: Metric, labels: _Floats, outputs: _Floats, weights: _Floats) -> float | None:
    """Compute a metric with weights, turned so that more is worse; None where it is undefined."""
    if outputs.ndim == 2:
        return _class_badness(metric, labels, outputs, weights)
    total = float(weights.sum())
    if total <= 0:
        return None
    if metric == "roc_auc":
        return _auc_badness(labels, outputs, weights)
    if metric == "f1":
        hit, said, is_ = (float((weights * p).sum()) for p in _f1_parts(labels, outputs))
        return None if said + is_ == 0 else -2 * hit / (said + is_)
    loss = float((weights * _row_losses(metric, labels, outputs)).sum()) / total
    return math.sqrt(loss) if metric == "rmse" else loss


def _auc_badness(labels: _Floats, outputs: _Floats, weights: _Floats) -> float | None:
    order = np.argsort(outputs, kind="stable")
    ranked, positive = outputs[order], weights[order] * labels[order]
    negative = weights[order] - positive
    if positive.sum() <= 0 or negative.sum() <= 0:
        return None
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    ups, downs = np.add.reduceat(positive, starts), np.add.reduceat(negative, starts)
    below = np.cumsum(downs) - downs / 2
    return -float((ups * below).sum() / (positive.sum() * negative.sum()))


def _f1_parts(labels: _Floats, outputs: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    said = outputs >= 0.5
    return said * labels, said, labels


def _row_losses(metric: Metric, labels: _Floats, outputs: _Floats) -> _Floats:
    if metric == "log_loss":
        given = np.clip(outputs, 1e-15, 1 - 1e-15)
        found: _Floats = -labels * np.log(given) - (1 - labels) * np.log(1 - given)
        return found
    if metric == "accuracy":
        return np.where(outputs >= 0.5, 1 - labels, labels)
    errors: _Floats = np.abs(labels - outputs)
    return np.square(errors) if metric == "rmse" else errors


def _class_badness(metric: Metric, labels: _Floats, shares: _Floats, weights: _Floats) -> float | None:
    """Accuracy stands in for what has no loss by rows."""
    if not shares.shape[1] or weights.sum() <= 0:
        return None
    truth = labels.astype(int)
    given = np.where(truth >= 0, shares[np.arange(len(truth)), np.maximum(truth, 0)], 0.0)
    losses = -np.log(np.clip(given, 1e-15, 1.0)) if metric == "log_loss" else shares.argmax(1) != truth
    return float((weights * losses).sum() / weights.sum())


def _jackknifed(
    metric: Metric, labels: _Floats, outputs: _Floats, weights: _Floats | None = None
) -> _Badness | None:
    """Compute a metric on all rows and without each part; None where it is undefined on one."""
    weights = np.ones(len(labels)) if weights is None else weights
    part = np.arange(len(labels)) % _GROUPS
    if outputs.ndim == 1:  # sorted once, not for each part
        order = np.argsort(outputs, kind="stable")
        labels, outputs, weights, part = labels[order], outputs[order], weights[order], part[order]
    kept = [part >= 0, *(part != left_out for left_out in range(_GROUPS))]
    found = [_badness(metric, labels[rows], outputs[rows], weights[rows]) for rows in kept]
    known = [value for value in found if value is not None]
    return _Badness(known[0], np.array(known[1:])) if len(known) == len(found) else None


def _loss(metric: Metric, side: _Side, outputs: _Floats, weights: _Floats | None = None) -> _Loss:
    """Compare other outputs, or another weighting, of labelled rows with what there is."""
    after = _jackknifed(metric, side.labels, outputs, weights)
    if after is None:
        return _Loss(0.0, math.inf)
    scale = _scale(metric, side.labels)
    lost = _Badness(after.value - side.badness.value, after.parts - side.badness.parts)
    return _Loss(lost.value / scale, lost.error / scale)


def _scale(metric: Metric, labels: _Floats) -> float:
    """Give the unit of a loss: errors of regression count in standard deviations of the label."""
    return max(float(labels.std()), 1e-12) if metric in ("mae", "rmse") else 1.0


# How columns hang together.


class _Relations(NamedTuple):
    """Codes of each column, and how well the others predict them.

    Parameters
    ----------
    blocks
        The codes' positions by column.
    inverse
        Inverse of the codes' ridged second moments in one half of the reference.
    half
        Rows of the reference that made it; the others judge.
    held, now
        Covariance of the codes in the other half of the reference, and in the current window.
    reference, current
        Codes: a row each.
    """

    blocks: dict[str, list[int]]
    inverse: _Floats
    half: _Floats
    held: _Floats
    now: _Floats
    reference: _Floats
    current: _Floats


def _relations(
    features: Sequence[FeatureKind],
    reference: pl.DataFrame,
    current: pl.DataFrame,
    labelled: pl.DataFrame,
    outputs: _Floats,
) -> _Relations:
    frames = [reference, current, *([] if labelled is reference else [labelled])]
    place = 0 if labelled is reference else 2
    columns: list[tuple[_Floats, ...]] = []
    blocks: dict[str, list[int]] = {}
    numeric = [k.name for k in features if _is_number(k, reference[k.name], current[k.name])]
    scores = {name: _normal_scores(reference[name], [f[name] for f in frames]) for name in numeric}
    guides = np.column_stack([outputs, *(scores[name][place] for name in numeric)])
    for kind in features:
        if kind.name in scores:
            codes = _number_codes(scores[kind.name][:2], [f[kind.name] for f in frames[:2]])
        else:
            codes = _category_codes(labelled[kind.name], guides, [f[kind.name] for f in frames[:2]])
        blocks[kind.name] = list(range(len(columns), len(columns) + len(codes)))
        columns += codes
    coded = [np.column_stack([c[i] for c in columns]) for i in range(2)]
    middle, spread = coded[0].mean(0), np.maximum(coded[0].std(0), 0.05)
    coded = [(c - middle) / spread for c in coded]
    half = np.arange(len(coded[0])) % 2 == 0
    moments = coded[0][half].T @ coded[0][half] + 20.0 * np.eye(len(columns))
    held, now = _covariance(coded[0][~half]), _covariance(coded[1])
    return _Relations(blocks, np.linalg.inv(moments), half, held, now, coded[0], coded[1])


def _covariance(codes: _Floats) -> _Floats:
    centred = codes - codes.mean(0)
    return np.asarray(centred.T @ centred / max(len(codes), 1))


def _is_number(kind: FeatureKind, *columns: pl.Series) -> bool:
    return kind.dtype in ("float", "int") and all(c.dtype.is_numeric() for c in columns)


def _floats(column: pl.Series) -> _Floats:
    """Give numbers; what is null, NaN or infinite as NaN."""
    given = column.cast(pl.Float64).to_numpy().astype(np.float64, copy=True)
    given[~np.isfinite(given)] = np.nan
    return given


def _normal_scores(base: pl.Series, columns: Sequence[pl.Series]) -> list[_Floats]:
    """Give each value the normal score of its rank in the reference; 0 where there is no value."""
    known = np.sort(_floats(base))
    known = known[~np.isnan(known)]
    found: list[_Floats] = []
    for column in columns:
        given = _floats(column)
        if not len(known):
            found.append(np.zeros(len(given)))
            continue
        ranks = (np.searchsorted(known, given, "left") + np.searchsorted(known, given, "right")) / 2
        shares = np.clip((ranks + 0.5) / (len(known) + 1), 0.002, 0.998)
        found.append(np.where(np.isnan(given), 0.0, _probit(shares)))
    return found


def _probit(shares: _Floats) -> _Floats:
    from scipy.special import ndtri  # noqa: PLC0415

    return np.asarray(ndtri(shares))


def _number_codes(scores: Sequence[_Floats], columns: Sequence[pl.Series]) -> list[tuple[_Floats, ...]]:
    """Code a number by its score, the score's square, and whether it is missing."""
    missing = tuple(np.isnan(_floats(c)).astype(float) for c in columns)
    return [tuple(scores), tuple((s**2 - 1) / 1.5 for s in scores), missing]


def _category_codes(
    base: pl.Series, guides: _Floats, columns: Sequence[pl.Series]
) -> list[tuple[_Floats, ...]]:
    """Code a category by what else it goes with: means of the output and of the numbers in it.

    The means are reduced to their two main directions, as correspondence analysis does.
    """
    keys, index = np.unique(_texts(base), return_inverse=True)
    counts = np.bincount(index, minlength=len(keys)).astype(float)
    guides = (guides - guides.mean(0)) / np.maximum(guides.std(0), 1e-9)
    sums = np.column_stack([np.bincount(index, g, minlength=len(keys)) for g in guides.T])
    means = sums / (counts + 10.0)[:, None]
    _, _, directions = np.linalg.svd(means[:, 1:] * np.sqrt(counts)[:, None], full_matrices=False)
    values = np.column_stack([means[:, :1], means[:, 1:] @ directions[:2].T])
    coded: list[_Floats] = []
    for column in columns:
        texts = _texts(column)
        at = np.minimum(np.searchsorted(keys, texts), len(keys) - 1)
        coded.append(np.where((keys[at] == texts)[:, None], values[at], 0.0))
    return [tuple(c[:, i] for c in coded) for i in range(values.shape[1])]


def _texts(column: pl.Series) -> _Floats:
    return column.cast(pl.String).fill_null("\0none").to_numpy().astype(str)


def _from_others(relations: _Relations, block: Sequence[int]) -> _Floats:
    """Give the weights that predict these codes from all codes that are not among them."""
    inverse = relations.inverse
    weights = -inverse[:, block] @ np.linalg.inv(inverse[np.ix_(block, block)])
    weights[block] = 0.0
    return np.asarray(weights)


class _Kept(NamedTuple):
    """How well other columns predict a column: correlation in the reference, now, and slope now."""

    before: float
    now: float
    slope: float

    @property
    def lost(self) -> float:
        """Correlation that is gone; a selection of rows leaves the slope at 1, so it must fall too."""
        sign = math.copysign(1.0, self.before)
        return abs(self.before) * min(1 - sign * self.now / max(abs(self.before), 1e-9), 1 - self.slope)


def _kept(relations: _Relations, name: str, without: Sequence[str] = ()) -> _Kept:
    """Compare how well the columns that are not suspected predict this one's codes, then and now."""
    own = relations.blocks[name]
    block = own + [code for other in without if other != name for code in relations.blocks[other]]
    weights = _from_others(relations, block)[:, : len(own)]
    before, _ = _agreement(relations.held, weights, own)
    now, slopes = _agreement(relations.now, weights, own)
    best = int(np.argmax(np.abs(before)))
    return _Kept(float(before[best]), float(now[best]), float(slopes[best]))


def _agreement(moments: _Floats, weights: _Floats, own: Sequence[int]) -> tuple[_Floats, _Floats]:
    """Give correlation of codes with what is predicted of them, and slope, by the codes' covariance."""
    along = moments @ weights
    predicted = np.sqrt(np.maximum((weights * along).sum(0), 0.0))
    spread = np.sqrt(np.diag(moments)[own])
    both = along[own, np.arange(len(own))]
    told = predicted * spread > 1e-9
    correlation = np.where(told, both / np.where(told, predicted * spread, 1.0), 0.0)
    moves = predicted > 1e-9
    return correlation, np.where(moves, correlation * spread / np.where(moves, predicted, 1.0), 1.0)


# One column, played through.


def _ratios(case: _Case, name: str) -> tuple[_Floats, _Floats, float]:
    """Give density ratios of a column for reference and weighted rows, and the share out of range."""
    kind = next(k for k in case.features if k.name == name)
    frames = (case.reference, case.current, case.weighted.frame)
    if _is_number(kind, case.reference[name], case.current[name]):
        values = [_floats(frame[name]) for frame in frames]
        pooled = np.concatenate(values[:2])
        pooled = pooled[~np.isnan(pooled)]
        edges = (
            np.unique(np.quantile(pooled, np.linspace(0, 1, 21)[1:-1])) if len(pooled) else np.zeros(1)
        )
        binned = [np.where(np.isnan(v), len(edges) + 1, np.searchsorted(edges, v)) for v in values]
    else:
        texts = [_texts(frame[name]) for frame in frames]
        keys = np.unique(np.concatenate(texts))
        binned = [np.searchsorted(keys, t) for t in texts]
    size = int(max(b.max() for b in binned)) + 1
    shares = [np.bincount(b.astype(int), minlength=size) / len(b) for b in binned[:2]]
    ratio = np.minimum(shares[1] / np.maximum(shares[0], 1e-9), 20.0)
    outside = float(np.maximum(shares[1] - 20.0 * shares[0], 0.0).sum())
    return ratio[binned[0].astype(int)], ratio[binned[2].astype(int)], outside


def _slope(case: _Case, name: str, ratios: _Floats, without: Sequence[str] = ()) -> tuple[float, float]:
    """Say by how much the other columns moved, of what they would if the world had; and the error.

    The direction looked at is what the others predict of the column's density ratio, learned on one half
    of the reference and judged on the other.
    """
    relations = case.relations
    block = [code for other in {name, *without} for code in relations.blocks[other]]
    inverse, half, codes = relations.inverse, relations.half, relations.reference
    moments = codes[half].T @ (ratios[half] - ratios[half].mean())
    moments[block] = 0.0
    weights = inverse @ moments + _from_others(relations, block) @ (inverse[block] @ moments)
    weights[block] = 0.0
    before, now = codes[~half] @ weights, relations.current @ weights
    expected = float(((ratios[~half] - ratios[~half].mean()) * (before - before.mean())).mean())
    moved = float(now.mean() - before.mean())
    error = math.sqrt(float(before.var()) / max(len(before), 1) + float(now.var()) / max(len(now), 1))
    if expected <= 3 * error:
        return 0.0, math.inf
    return moved / expected, error / expected


def _look(case: _Case, columns: Sequence[ColumnDrift]) -> tuple[list[_Closer], list[Finding]]:
    """Look closer at what moved, at most at 8 columns; the outputs choose where there are more."""
    moved = {c.name for c in columns if c.drifted}
    moved |= {k.name for k in case.features if _more_missing(case, k.name)}
    moved |= {k.name for k in case.features if _reshaped(case, k)}
    chosen = [k.name for k in case.features if k.name in moved]
    skipped: list[Finding] = []
    if len(chosen) > _CLOSER:
        far = {c.name: _far(c) for c in columns}
        chosen.sort(key=lambda name: -far.get(name, math.inf))
        weights = {name: _weight(case, name) for name in chosen[:_SCREENED]}
        chosen.sort(key=lambda name: -weights.get(name, -1.0))
        by_name = {c.name: c for c in columns}
        skipped = [_not_looked_at(by_name[n], weights.get(n)) for n in chosen[_CLOSER:] if n in by_name]
        chosen = chosen[:_CLOSER]
    looked = [_closer(case, name, sorted(moved - {name})) for name in chosen]
    alone = [closer.name for closer in looked if closer.alone]
    world = len(alone) < len(looked) or bool(skipped)
    quiet = _broken(case, moved, alone, 0.3 if world else _BROKEN)
    looked += [_closer(case, name, [*moved, *quiet], broken=True) for name in quiet]
    return looked, skipped


def _reshaped(case: _Case, kind: FeatureKind) -> bool:
    """Tell whether a number's ranks moved: a long tail can hide that from a distance in its own unit."""
    first, second = case.reference[kind.name], case.current[kind.name]
    if not _is_number(kind, first, second):
        return False
    before, now = (np.sort(given[~np.isnan(given)]) for given in (_floats(first), _floats(second)))
    if not len(before) or not len(now):
        return False
    shares = [
        np.searchsorted(before, before, side) / len(before)
        - np.searchsorted(now, before, side) / len(now)
        for side in ("left", "right")
    ]
    distance = max(float(np.abs(share).max()) for share in shares)
    return distance > max(_RANKS, 2 * math.sqrt(1 / len(before) + 1 / len(now)))


def _more_missing(case: _Case, name: str) -> bool:
    first, second = _missing(case.reference[name]), _missing(case.current[name])
    return second - first > 0.02 + 2 / math.sqrt(min(case.current.height, case.reference.height))


def _broken(case: _Case, moved: set[str], alone: Sequence[str], least: float) -> list[str]:
    """Name columns that moved in no test, and are no longer what the others say, the clearest first.

    A column that is already suspected does not testify against others.
    """
    least = max(least, 8 / math.sqrt(min(case.current.height, case.reference.height)))
    suspected: list[str] = []
    candidates = [k.name for k in case.features if k.name not in moved]
    while candidates and len(suspected) < _CLOSER // 2:
        lost = {name: _kept(case.relations, name, [*alone, *suspected]).lost for name in candidates}
        candidates = sorted((n for n in candidates if lost[n] > least), key=lambda n: -lost[n])
        suspected += candidates[:1]
        candidates = candidates[1:]
    return suspected


def _far(column: ColumnDrift) -> float:
    if "p_value" in column.measure:
        return -math.log10(max(column.distance, 1e-300))
    return column.distance / column.threshold


def _weight(case: _Case, name: str) -> float:
    """Try on a few rows how much the outputs move with a column."""
    few = case.labelled.frame[:300]
    values = case.current[name].cast(few[name].dtype, strict=False)
    drawn = values.gather(case.drawn.integers(0, len(values), few.height)).alias(name)
    return float(np.abs(case.predict(few.with_columns(drawn)) - case.labelled.outputs[:300]).mean())


def _missing(column: pl.Series) -> float:
    if column.dtype.is_numeric():
        return float(np.isnan(_floats(column)).mean())
    return column.null_count() / max(len(column), 1)


def _closer(case: _Case, name: str, others: Sequence[str], *, broken: bool = False) -> _Closer:
    ratios, weights, outside = _ratios(case, name)
    kept = _kept(case.relations, name, others)
    if broken or _moved_alone(case, name, ratios, outside, others):
        side, still = case.labelled, _still_says(kept)
        column = _replaced(case, name, still)
        outputs = case.predict(side.frame.with_columns(column))
        loss = _loss(case.metric, side, outputs)
        effect = float(np.abs(outputs - side.outputs).mean())
        return _Closer(name, effect, loss, column, still, alone=True, broken=broken)
    side = case.weighted
    loss = _loss(case.metric, side, side.outputs, weights)
    mean = float((side.outputs.T * weights).mean() / max(weights.mean(), 1e-9))
    effect = abs(mean - float(side.outputs.mean())) if side.outputs.ndim == 1 else 0.0
    return _Closer(name, effect, loss, None, 1.0, alone=False, broken=False)


def _moved_alone(case: _Case, name: str, ratios: _Floats, outside: float, others: Sequence[str]) -> bool:
    """Tell whether the others stayed; asked with and without those that moved too.

    Where no other column goes with this one, that is no witness. Then a number is taken to have moved
    alone, and a category only by values that the reference did not have.
    """
    kind = next(k for k in case.features if k.name == name)
    number = _is_number(kind, case.reference[name], case.current[name])
    if outside > (0.2 if number else 0.02):
        return True
    slope, error = _slope(case, name, ratios)
    if not math.isfinite(error):
        return number
    if slope < 0.5 or not others:
        return slope < 0.5
    slope, error = _slope(case, name, ratios, others)
    return math.isfinite(error) and slope + error < 0.5


def _still_says(kept: _Kept) -> float:
    """Say how much of a column's rank is still told: 1 all, 0 none, below 0 the reverse."""
    if abs(kept.before) < 0.15:
        return 1.0
    left = kept.now / kept.before
    return 1.0 if left > 0.9 else max(left, -1.0)


def _replaced(case: _Case, name: str, kept: float) -> pl.Series:
    """Give the labelled rows the values that a column that moved alone would have there."""
    kind = next(k for k in case.features if k.name == name)
    base, now = case.labelled.frame[name], case.current[name]
    if _is_number(kind, base, now):
        values = _replaced_numbers(_floats(base), _floats(now), kept, case.drawn)
        replaced = pl.Series(name, values).fill_nan(None)
        return (
            replaced.round().cast(base.dtype) if base.dtype.is_integer() else replaced.cast(base.dtype)
        )
    return _replaced_categories(base, now, kept, case.drawn).alias(name)


def _replaced_numbers(base: _Floats, now: _Floats, kept: float, drawn: np.random.Generator) -> _Floats:
    """Move every value to the same quantile of the current window, its rank blurred by what is lost."""
    known = np.sort(now[~np.isnan(now)])
    if not len(known):
        return np.full(len(base), np.nan)
    given = ~np.isnan(base)
    ranks = np.empty(len(base))
    order = np.lexsort((drawn.random(len(base)), np.where(given, base, np.inf)))
    ranks[order] = np.arange(len(base))
    shares = (ranks + 0.5) / max(given.sum(), 1)
    if kept < 1.0:
        scores = _probit(np.clip(shares, 1e-4, 1 - 1e-4))
        blurred = kept * scores + math.sqrt(max(1 - kept**2, 0.0)) * drawn.normal(size=len(base))
        shares = (np.argsort(np.argsort(blurred)) + 0.5) / len(base)
    at = np.clip((shares * len(known)).astype(int), 0, len(known) - 1)
    values = np.where(given, known[at], np.nan)
    more = float(np.isnan(now).mean()) - float((~given).mean())
    if more > 0:
        values[drawn.random(len(base)) < more / max(float(given.mean()), 1e-9)] = np.nan
    return values


def _replaced_categories(
    base: pl.Series, now: pl.Series, kept: float, drawn: np.random.Generator
) -> pl.Series:
    """Move as few rows as the shares of the categories ask for; and more where the relation broke."""
    texts, target = _texts(base), _texts(now)
    keys, index = np.unique(np.concatenate([texts, target]), return_inverse=True)
    shares = [
        np.bincount(part, minlength=len(keys)) / len(part) for part in np.split(index, [len(texts)])
    ]
    surplus = np.maximum(shares[0] - shares[1], 0) / np.maximum(shares[0], 1e-12)
    wanted = np.maximum(shares[1] - shares[0], 0)
    moved = drawn.random(len(texts)) < surplus[index[: len(texts)]]
    chosen = index[: len(texts)].copy()
    if wanted.sum() > 0:
        chosen[moved] = drawn.choice(len(keys), int(moved.sum()), p=wanted / wanted.sum())
    if kept < 1.0:
        shuffled = drawn.random(len(texts)) < 1 - max(kept, 0.0)
        chosen[shuffled] = drawn.choice(len(keys), int(shuffled.sum()), p=shares[1])
    given = pl.Series(keys[chosen].tolist(), dtype=pl.String)
    given = given.replace("\0none", None)
    return (
        (given == "true").cast(base.dtype)
        if base.dtype == pl.Boolean
        else given.cast(base.dtype, strict=False)
    )


# What is said about it.


def _judge(loss: _Loss, call: float = _CALL) -> Verdict:
    if loss.value >= call and loss.value > _ERRORS * loss.error:
        return "act"
    return "watch" if loss.value + loss.error >= call else "benign"


def _column_findings(
    case: _Case, columns: Sequence[ColumnDrift], looked: Sequence[_Closer]
) -> list[Finding]:
    by_name = {column.name: column for column in columns}
    found: list[Finding] = []
    for closer in looked:
        column = by_name.get(closer.name)
        verdict = _judge(closer.loss, _CALL if closer.alone else _CALL_WORLD)
        found.append(
            Finding(
                what=closer.name,
                distance=column.distance if column else 1.0,
                measure=column.measure if column else "share without a value",
                drifted=bool(column and column.drifted),
                output_effect=closer.output_effect,
                metric_effect=closer.loss.value,
                verdict=verdict,
                sentence=_sentence(case, closer),
            )
        )
    return found


def _sentence(case: _Case, closer: _Closer) -> str:
    cost = _cost(case.metric, closer.loss.value)
    effect = f"the champion's outputs move {closer.output_effect:.2g} because of it, which {cost}"
    move = _move(case, closer.name)
    if not closer.alone:
        return f"{move}, and the columns that go with it move too; {effect}"
    why = " and no longer agrees with the other columns" if closer.kept < 0.7 else " by itself"
    return f"{move}{why}; {effect}"


def _cost(metric: Metric, loss: float) -> str:
    name = {"roc_auc": "ROC AUC", "log_loss": "log loss", "f1": "F1"}.get(metric, metric)
    unit = "standard deviations of the label, by " + name if metric in ("mae", "rmse") else name
    return f"costs about {loss:.3f} {unit}" if loss >= 0.0005 else f"costs no {name}"


def _move(case: _Case, name: str) -> str:
    first, second = case.reference[name], case.current[name]
    gone = _missing(second) - _missing(first)
    if gone > 0.02:
        return f"{name} is missing in {_missing(second):.0%} of rows, before in {_missing(first):.0%}"
    if not first.dtype.is_numeric() or not second.dtype.is_numeric():
        new = ~np.isin(_texts(second), np.unique(_texts(first)))
        return (
            f"{name} has values never seen in {new.mean():.0%} of rows"
            if new.any()
            else f"shares of {name} moved"
        )
    if _missing(first) == 1 or _missing(second) == 1:
        return f"{name} has no value in a window"
    if second.n_unique() == 1 and first.n_unique() > 1:
        return f"{name} is stuck at {second[0]}"
    before, now = np.nanmean(_floats(first)), np.nanmean(_floats(second))
    spread = np.nanstd(_floats(first))
    if abs(now - before) < 0.05 * spread:
        return f"{name} kept its mean and moved otherwise"
    return f"{name} moved {abs(now - before):.3g} units {'up' if now > before else 'down'}"


def _not_looked_at(column: ColumnDrift, weight: float | None) -> Finding:
    return Finding(
        what=column.name,
        distance=column.distance,
        measure=column.measure,
        drifted=column.drifted,
        output_effect=weight or 0.0,
        verdict="watch",
        sentence=f"{column.name} moved too, and {_CLOSER} other columns weigh more in the outputs",
    )


def _joint(case: _Case, looked: Sequence[_Closer]) -> list[Finding]:
    """Find what no single column shows: relations broken, and columns that cost only together."""
    alone = [closer for closer in looked if closer.column is not None]
    broken = [closer for closer in looked if closer.broken]
    if len(alone) < 2 and not broken:
        return []
    replaced = [closer.column for closer in alone if closer.column is not None]
    side = case.labelled
    outputs = case.predict(side.frame.with_columns(replaced))
    loss = _loss(case.metric, side, outputs)
    names = ", ".join(closer.name for closer in broken or alone)
    what = "no longer go with the other columns as before" if broken else "moved by themselves together"
    return [
        Finding(
            what="joint",
            distance=max(1 - closer.kept for closer in broken or alone),
            measure="rank correlation lost",
            drifted=False,
            output_effect=float(np.abs(outputs - side.outputs).mean()),
            metric_effect=loss.value,
            verdict=_judge(loss),
            sentence=f"{names} {what}, which {_cost(case.metric, loss.value)}",
        )
    ]


def _output(case: _Case, task: Task) -> list[Finding]:
    """Compare the champion's outputs in both windows; by itself that is to be watched at most."""
    if task == "multiclass":
        return []
    before, now = case.outputs
    kind = Feature("output", float)
    found = column_drift(pl.Series(before), pl.Series(now), kind)
    if isinstance(found, str) or not found.drifted:
        return []
    moved = float(now.mean() - before.mean())
    way = "higher" if moved > 0 else "lower"
    return [
        Finding(
            what="output",
            distance=found.distance,
            measure=found.measure,
            drifted=True,
            output_effect=abs(moved),
            verdict="benign",
            sentence=f"the champion's outputs are {abs(moved):.2g} {way} on average",
        )
    ]


# With labels.


def _measured(
    case: _Case,
    reference: pl.DataFrame,
    mature: pl.DataFrame,
    earlier: pl.DataFrame | None,
    task: Task,
    predict: _Predict,
    least: int,
) -> tuple[_Loss | None, list[str]]:
    """Measure what the metric lost between what came before and the mature window."""
    names = [kind.name for kind in case.features]
    known = _known(mature)
    if known.height < max(least, 2 * _GROUPS):
        return None, [
            f"insufficient_data: {known.height} labels in the mature window, fewer than {least}"
        ]
    base = _known(reference)
    classes = sorted({str(v) for v in base["label"].unique()}) if task == "multiclass" else []

    def scored(rows: pl.DataFrame) -> _Badness | None:
        rows = _sample(rows, _LABELLED, case.drawn)
        given = _given(rows, classes, lambda some: _outputs(predict(some.select(names)), classes))
        return _jackknifed(case.metric, _labels(rows["label"], classes), given)

    notes: list[str] = []
    served = base.filter(pl.col("output").is_not_null()) if "output" in base.columns else base[:0]
    allowed, doubt = 0.0, 0.0
    if earlier is not None and _known(earlier).height >= max(least, 2 * _GROUPS):
        before = scored(_known(earlier))
    elif served.height >= max(least, 2 * _GROUPS):
        before, doubt = scored(served), _OTHERS
    else:
        before, allowed = scored(base.drop("output", strict=False)), _OPTIMISM
        notes.append(f"the reference has no served outputs: {_OPTIMISM} of a measured loss is forgiven")
    now = scored(known)
    if before is None or now is None:
        return None, [*notes, f"{case.metric} is not defined on the mature window"]
    scale = _scale(case.metric, case.labelled.labels)
    error = math.hypot(now.error / scale, before.error / scale, doubt)
    return _Loss((now.value - before.value) / scale - allowed, error), notes


def _known(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("label").is_not_null()) if "label" in frame.columns else frame[:0]


def _served(outputs: pl.Series, classes: Sequence[str]) -> _Floats:
    if not classes:
        return outputs.cast(pl.Float64).to_numpy()
    decoder = msgspec.json.Decoder(dict[str, float])
    return _outputs([decoder.decode(text) for text in outputs.cast(pl.String)], classes)


def _with_labels(case: _Case, findings: Sequence[Finding], measured: _Loss | None) -> list[Finding]:
    """Weigh what was estimated against what was measured, each by its precision."""
    if measured is None or not math.isfinite(measured.error):
        return list(findings)
    estimates = [f.metric_effect for f in findings if f.metric_effect is not None]
    estimate = max(estimates, default=0.0)
    doubt = 0.003 + _MODEL_ERROR * estimate
    concept = _concept(case, measured, max(estimate, 0.0), doubt)
    if estimate >= 0.003:
        share = doubt**2 / (doubt**2 + measured.error**2)
        error = math.sqrt(share) * measured.error / _ERRORS  # one, since two sources agree
        both = _Loss(share * measured.value + (1 - share) * estimate, error)
        return [*(_weighed(case, f, both, measured, estimate) for f in findings), *concept]
    if _judge(measured, _HARM) == "benign":
        return [_relieved(finding) for finding in findings]
    return [*findings, *concept]


def _concept(case: _Case, measured: _Loss, estimate: float, doubt: float) -> list[Finding]:
    """Find a measured loss that no moved column explains."""
    known = estimate >= 0.003
    loss = _Loss(
        measured.value - (estimate if known else 0.0),
        math.hypot(measured.error, doubt if known else 0.0),
    )
    if _judge(loss, _HARM) != "act":
        return []
    cost = _cost(case.metric, loss.value)
    return [
        Finding(
            what="concept",
            distance=loss.value,
            measure=f"loss of {case.metric}",
            drifted=False,
            metric_effect=loss.value,
            verdict="act",
            sentence=f"labels follow the features in another way than before, which {cost}, measured",
        )
    ]


def _weighed(case: _Case, finding: Finding, both: _Loss, measured: _Loss, estimate: float) -> Finding:
    """Correct an estimated effect by what was measured of all of them together."""
    if finding.metric_effect is None or finding.metric_effect < 0.003:
        return finding
    share = finding.metric_effect / estimate
    loss = _Loss(both.value * share, both.error * share)
    call = _CALL if finding.verdict == "act" else _HARM
    measure = (
        f"{finding.sentence}; measured on labels, all together {_cost(case.metric, measured.value)}"
    )
    return msgspec.structs.replace(
        finding, metric_effect=loss.value, verdict=_judge(loss, call), sentence=measure
    )


def _relieved(finding: Finding) -> Finding:
    """Call benign what the labels show to cost nothing."""
    return msgspec.structs.replace(finding, verdict="benign")


def _label(reference: pl.DataFrame, mature: pl.DataFrame, task: Task) -> list[Finding]:
    """Compare the labels of both windows; what a changed share costs is the metric's to say."""
    if "label" not in reference.columns or "label" not in mature.columns:
        return []
    kind = Feature("label", {"regression": float, "multiclass": str}.get(task, bool))
    first, second = reference["label"].drop_nulls(), mature["label"].drop_nulls()
    if task != "regression":
        first, second = first.cast(pl.String), second.cast(pl.String)
        kind = Feature("label", str)
    found = column_drift(first, second, kind)
    if isinstance(found, str) or not found.drifted:
        return []
    return [
        Finding(
            what="label",
            distance=found.distance,
            measure=found.measure,
            drifted=True,
            verdict="benign",
            sentence=f"labels came in other shares than before ({found.measure} {found.distance:.2g})",
        )
    ]
