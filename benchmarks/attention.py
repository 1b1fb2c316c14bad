"""The verdict `act` is said of changes that cost, and only of them: with labels, and without.

Base windows are drawn at random from a shuffled stream, so nothing drifts but what is injected. One list
of families, with its seeds, was for tuning; the printed figure comes from the other.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
from examples.electricity import pipeline as electricity
from examples.flights import pipeline as flights
from examples.flights.data import FEATURES, load

from benchmarks.claim import Outcome, at_least, say
from benchmarks.imported import context
from benchmarks.preset import preset
from headwater.monitoring.attention import Attention, attend
from headwater.spec.feature import Feature, RequestFeature
from headwater.spec.monitoring import Monitoring

__all__ = [
    "FIGURE",
    "TUNING",
    "Case",
    "Champion",
    "Shifted",
    "Stream",
    "Tally",
    "cases",
    "harm_of",
    "is_harmful",
    "measure",
    "streams",
    "trained",
]

_WITHOUT, _WITH = 0.75, 0.85
_HARM = 0.01
_WINDOWS, _SHORT_WINDOWS = 100, 1  # of each family and stream
_CHAMPIONS = 5
_GROUPS = 20
_POOL = 100_000
_FIGURE_SEED = 2_000

_Predict = Callable[[pl.DataFrame], list[float]]
_Random = np.random.Generator


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
    predict: _Predict
    reference: pl.DataFrame
    earlier: pl.DataFrame
    pool: pl.DataFrame

    def served(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Give rows with what the champion says of them."""
        return rows.with_columns(output=pl.Series(self.predict(rows)))


class Case(NamedTuple):
    """Some windows, what was injected, what it cost, and what was said."""

    stream: str
    family: str
    harmful: bool | None
    needs_labels: bool
    harm: float
    error: float
    free: Attention
    labelled: Attention
    confirmed: bool | None = None

    @property
    def share(self) -> float:
        """Share of columns that drifted by themselves."""
        drifted = [column.drifted for column in self.free.columns]
        return sum(drifted) / len(drifted)


class Shifted(NamedTuple):
    """A window with a shift in it, the same rows without, and what weighs them so that they shifted.

    Where other rows come, the rows without the shift are all that can come, the shift is their weights,
    and the window is drawn by these.
    """

    window: pl.DataFrame
    before: pl.DataFrame
    weights: np.ndarray | None = None


class Tally(msgspec.Struct):
    """How often `act` was right."""

    hits: int = 0
    false: int = 0
    missed: int = 0
    quiet: int = 0

    def add(self, *, harmful: bool, said: bool) -> None:
        """Count one window."""
        name = ("hits" if said else "missed") if harmful else ("false" if said else "quiet")
        setattr(self, name, getattr(self, name) + 1)

    def numbers(self) -> dict[str, float]:
        """Give precision and recall, with the lower ends of their Wilson intervals, and the counts."""
        precision, recall = (self.hits, self.hits + self.false), (self.hits, self.hits + self.missed)
        return {
            "precision": _share(*precision),
            "precision_lower": _wilson(*precision),
            "recall": _share(*recall),
            "recall_lower": _wilson(*recall),
            "harmful": self.hits + self.missed,
            "benign": self.false + self.quiet,
        }

    @property
    def lower(self) -> float:
        """The lower of both lower ends."""
        return min(self.numbers()["precision_lower"], self.numbers()["recall_lower"])


def measure(*, short: bool) -> Outcome:
    """Inject the families of the figure into windows of flights, and of elec2 (15 CPU minutes).

    The variable ``HEADWATER_ELEC2`` names the Parquet file of elec2; without it the claim does not hold,
    whatever flights come to. A window is harmful when its ROC AUC lost 0.01 or more and over two
    standard errors, benign when it lost less than both; the band between is left out. Every verdict is
    of one call of `attend` with the example's own `Monitoring`: the newest week, 6,500 flights or 336
    half hours, and the labels of as many weeks as it judges together. The shift is in all of them, and
    harm is measured on all of them. Windows of a champion are drawn from the same rows, and of elec2,
    which is short, overlap, while Wilson's intervals take them for independent.

    Evidently's default verdict, that half of the columns drifted, is computed from our columns, and by
    Evidently itself on the first window of each family and champion. ``ratio`` is the least of the lower
    bounds over what it must reach.
    """
    windows, champions = (_SHORT_WINDOWS, 1) if short else (_WINDOWS, _CHAMPIONS)
    draw = partial(_drawn, windows=windows, champions=champions, confirm=not short)
    with ProcessPoolExecutor(2, mp_context=context()) as pool:
        found = list(chain.from_iterable(pool.map(draw, streams(short=short))))
    names = sorted({case.stream for case in found})
    numbers: dict[str, object] = {}
    reached = []
    for name in names:
        mine = [case for case in found if case.stream == name]
        tallies = _tallies(mine)
        numbers |= {f"{name}_{which}": _shown(tally.numbers()) for which, tally in tallies.items()}
        numbers[f"{name}_left_out"] = sum(case.harmful is None for case in mine)
        reached += [tallies["without_labels"].lower / _WITHOUT, tallies["with_labels"].lower / _WITH]
    if "elec2" not in names:
        numbers["elec2"] = "not measured: HEADWATER_ELEC2 names no file"
    confirmed = [case.confirmed for case in found if case.confirmed is not None]
    return at_least(
        min(reached),
        1.0,
        also="elec2" in names and all(confirmed),
        windows=len(found),
        bounds={"without_labels": _WITHOUT, "with_labels": _WITH},
        evidently_itself={"windows": len(confirmed), "differs": confirmed.count(False)},
        **numbers,
    )


def _drawn(stream: Stream, windows: int, champions: int, *, confirm: bool) -> list[Case]:
    return list(cases(stream, FIGURE, _FIGURE_SEED, windows, champions=champions, confirm=confirm))


def _tallies(found: Sequence[Case]) -> dict[str, Tally]:
    """Count the verdicts; a concept that only labels can show counts only where there are labels."""
    judged = [case for case in found if case.harmful is not None]
    seen = [case for case in judged if not case.needs_labels]
    by_share = {share: _tally(seen, _over(share)) for share in {case.share for case in seen} - {0.0}}
    return {
        "without_labels": _tally(seen, lambda case: case.free.verdict == "act"),
        "with_labels": _tally(judged, lambda case: case.labelled.verdict == "act"),
        "evidently_default": _tally(seen, _over(0.5)),
        "any_column": _tally(seen, lambda case: case.share > 0),
        "share_best_in_hindsight": max(by_share.values(), key=lambda t: t.lower, default=Tally()),
    }


def _over(share: float) -> Callable[[Case], bool]:
    return lambda case: case.share >= share


def _tally(found: Sequence[Case], said: Callable[[Case], bool]) -> Tally:
    tally = Tally()
    for case in found:
        tally.add(harmful=bool(case.harmful), said=said(case))
    return tally


def _shown(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in numbers.items()}


def _share(hits: int, of: int) -> float:
    return hits / of if of else 0.0


def _wilson(hits: int, of: int) -> float:
    """Lower end of the 95 % interval (Wilson, "Probable inference", 1927)."""
    if not of:
        return 0.0
    z, share = 1.96, hits / of
    middle = share + z * z / (2 * of)
    spread = z * float(np.sqrt(share * (1 - share) / of + z * z / (4 * of * of)))
    return (middle - spread) / (1 + z * z / of)


def streams(*, short: bool) -> Iterator[Stream]:
    """Give the streams that are here."""
    known = load().drop_nulls("late")
    if short:
        known = known.sample(30_000, seed=0)
    rows = known.select(*[kind.name for kind in FEATURES], label="late")
    sizes = (5_000, 4_000, 700) if short else (20_000, 100_000, 6_500)
    yield Stream("flights", rows, FEATURES, flights.by_evidence.monitoring, *sizes)
    path = os.environ.get("HEADWATER_ELEC2")
    if path and Path(path).exists() and not short:
        yield _elec2(Path(path))


def _elec2(path: Path) -> Stream:
    """Leave the date out: a shuffled tree would learn each week by heart."""
    names = ["day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
    rows = pl.read_parquet(path).select(
        *[pl.col(name).cast(pl.Float64) for name in names], label=pl.col("class") == "UP"
    )
    features = tuple(Feature(name, float, nullable=True) for name in names)
    return Stream("elec2", rows, features, electricity.stage4.monitoring, 12_000, 10_000, 336)


def cases(
    stream: Stream,
    families: "dict[str, _Family]",
    seed: int,
    windows: int,
    *,
    champions: int,
    confirm: bool = False,
) -> Iterator[Case]:
    """Inject each family so many times, shared among some champions; `confirm` asks Evidently too."""
    for index in range(champions):
        drawn = np.random.default_rng(seed + index)
        champion = _champion(stream, drawn)
        auc = _auc(champion.pool["label"].to_numpy(), champion.pool["output"].to_numpy())
        say(f"{stream.name}: champion {index + 1}, ROC AUC {auc:.3f}")
        for name, family in families.items():
            for window in range(index, windows, champions):
                yield _case(champion, name, family, drawn, confirm=confirm and window == index)


def _champion(stream: Stream, drawn: _Random) -> Champion:
    """Train a champion; what its predecessor, trained on other rows, said of its rows was served."""
    rows = stream.rows[drawn.permutation(stream.rows.height)]
    before, learned, pool = (
        rows[: stream.learned],
        rows[stream.learned : 2 * stream.learned],
        rows[2 * stream.learned :],
    )
    predecessor, champion = trained(stream, before), trained(stream, learned)
    reference = learned.with_columns(output=pl.Series(predecessor(learned)))
    earlier, pool = pool[: stream.earlier], pool[stream.earlier :][:_POOL]
    found = Champion(stream, champion, reference, earlier, pool)
    return found._replace(earlier=found.served(earlier), pool=found.served(pool))


def trained(stream: Stream, rows: pl.DataFrame) -> _Predict:
    """Train boosted trees on rows of a stream with ``label``."""
    import lightgbm  # noqa: PLC0415 - an extra

    names = [kind.name for kind in stream.features]
    known = {k.name: pl.Enum(rows[k.name].unique().sort()) for k in stream.features if k.dtype == "str"}

    def codes(frame: pl.DataFrame) -> np.ndarray:
        cast = [pl.col(name).cast(kind, strict=False).to_physical() for name, kind in known.items()]
        return frame.select(names).with_columns(cast).cast(pl.Float64).fill_null(np.nan).to_numpy()

    model = lightgbm.LGBMClassifier(
        n_estimators=80, num_leaves=15, min_child_samples=50, learning_rate=0.1, verbose=-1, n_jobs=1
    )
    places = [names.index(name) for name in known]
    model.fit(codes(rows), rows["label"].to_numpy(), categorical_feature=places or "auto")
    booster = model.booster_
    return lambda frame: list(booster.predict(codes(frame), num_threads=1))


def _case(
    champion: Champion, name: str, family: "_Family", drawn: _Random, *, confirm: bool = False
) -> Case:
    stream = champion.stream
    at = drawn.choice(champion.pool.height, stream.drawn, replace=False)
    shifted = family(champion, champion.pool[at], drawn)
    served = champion.served(shifted.window)
    harm, error = harm_of(served, shifted)
    served = served[drawn.permutation(served.height)]
    window, judged = served[: stream.week].drop("label"), served[stream.week :]
    free, labelled = (
        attend(
            champion.reference[: stream.monitoring.reference_rows],
            window,
            features=stream.features,
            task="binary",
            metric="roc_auc",
            predict=champion.predict,
            least=stream.monitoring.least,
            mature=mature,
            earlier=champion.earlier,
        )
        for mature in (None, judged)
    )
    confirmed = _confirmed(champion, window, free) if confirm else None
    concept = name.startswith("concept")
    harmful = is_harmful(harm, error)
    return Case(stream.name, name, harmful, concept, harm, error, free, labelled, confirmed)


def is_harmful(harm: float, error: float) -> bool | None:
    """Tell harmful from benign; None in the band between."""
    if harm >= _HARM and harm > 2 * error:
        return True
    return False if harm < _HARM and harm <= 2 * error else None


def _confirmed(champion: Champion, window: pl.DataFrame, said: Attention) -> bool:
    """Tell whether Evidently itself says the same of the window, and of each column."""
    names = [kind.name for kind in champion.stream.features]
    reference = champion.reference[: champion.stream.monitoring.reference_rows]
    theirs = preset(reference[names].to_pandas(), window[names].to_pandas())
    ours = {column.name: column.drifted for column in said.columns}
    # Ours leaves out what it cannot judge, and theirs fails on some of that.
    return theirs.window == (2 * sum(ours.values()) >= len(ours)) and theirs.columns == ours


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
    return np.array([_auc(labels[k], outputs[k], weights[order][k]) for k in kept])


def _auc(labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Compute the area under the curve, ties counted half; scikit-learn takes four times as long."""
    weights = np.ones(len(labels)) if weights is None else weights
    order = np.argsort(outputs, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(outputs[order]) > 0])
    ups, downs = (np.add.reduceat((weights * is_)[order], starts) for is_ in (labels, ~labels))
    return float((ups * (np.cumsum(downs) - downs / 2)).sum() / (ups.sum() * downs.sum()))


_Family = Callable[[Champion, pl.DataFrame, _Random], Shifted]


def _number(champion: Champion, drawn: _Random) -> str:
    return str(drawn.choice([k.name for k in champion.stream.features if k.dtype == "float"]))


def _values(frame: pl.DataFrame, name: str) -> np.ndarray:
    return frame[name].fill_null(np.nan).to_numpy().copy()


def _with(frame: pl.DataFrame, **columns: np.ndarray | pl.Series) -> Shifted:
    series = [pl.Series(name, values) for name, values in columns.items()]
    series = [s.fill_nan(None) if s.dtype.is_float() else s for s in series]
    return Shifted(frame.with_columns(series), frame)


def _nothing(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    del champion, drawn
    return Shifted(frame, frame)


def _scaled(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    name = _number(champion, drawn)
    return _with(
        frame, **{name: _values(frame, name) * float(drawn.choice([0.45, 0.8, 1.3, 2.2, 10.0]))}
    )


def _noised(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    name = _number(champion, drawn)
    values = _values(frame, name)
    noise = (
        drawn.normal(size=len(values)) * np.nanstd(values) * float(drawn.choice([0.2, 0.6, 1.5, 3.0]))
    )
    return _with(frame, **{name: values + noise})


def _nulled(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    name = _number(champion, drawn)
    values = _values(frame, name)
    values[drawn.random(len(values)) < float(drawn.choice([0.1, 0.4, 0.7, 1.0]))] = np.nan
    return _with(frame, **{name: values})


def _reversed(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    """Turn some of a column's values around its mean."""
    name = _number(champion, drawn)
    values = _values(frame, name)
    hit = drawn.random(len(values)) < float(drawn.choice([0.1, 0.4, 1.0]))
    return _with(frame, **{name: np.where(hit, 2 * np.nanmean(values) - values, values)})


def _rounded(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    """Tell a column in steps of so many standard deviations only."""
    name = _number(champion, drawn)
    values = _values(frame, name)
    step = float(drawn.choice([0.3, 1.0, 3.0])) * max(float(np.nanstd(values)), 1e-9)
    return _with(frame, **{name: np.round(values / step) * step})


def _blended(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    """Let a column leak into another one."""
    names = [k.name for k in champion.stream.features if k.dtype == "float"]
    name, other = (str(one) for one in drawn.choice(names, 2, replace=False))
    values, leaks = _values(frame, name), _values(frame, other)
    share = float(drawn.choice([0.2, 0.6, 0.9]))
    leaks = (leaks - np.nanmean(leaks)) / max(float(np.nanstd(leaks)), 1e-9)
    leaks = np.nanmean(values) + np.nan_to_num(leaks) * np.nanstd(values)
    return _with(frame, **{name: (1 - share) * values + share * leaks})


def _redrawn(champion: Champion, weights: np.ndarray, drawn: _Random) -> Shifted:
    """Draw a window of other rows."""
    weights = np.nan_to_num(weights, nan=float(np.nanmedian(weights)))
    chances = weights / weights.sum()
    at = drawn.choice(champion.pool.height, champion.stream.drawn, p=chances)
    return Shifted(champion.pool[at], champion.pool, weights)


def _tilted(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    del frame
    values = _values(champion.pool, _number(champion, drawn))
    spread = (values - np.nanmean(values)) / max(float(np.nanstd(values)), 1e-9)
    return _redrawn(
        champion, np.exp(np.clip(spread, -2, 2) * float(drawn.choice([-0.8, 0.5, 1.0]))), drawn
    )


def _flipped(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    """Flip labels anywhere."""
    del champion
    flip = drawn.random(frame.height) < float(drawn.choice([0.0, 0.02, 0.08, 0.2]))
    return Shifted(frame.with_columns(label=frame["label"] != pl.Series(flip)), frame)


def _offset(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    name = _number(champion, drawn)
    values = _values(frame, name)
    return _with(
        frame, **{name: values + np.nanstd(values) * float(drawn.choice([-2, -0.7, 0.3, 1.0, 3.0]))}
    )


def _stuck(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    """Hold a value of the window from some row on."""
    name = _number(champion, drawn)
    values = _values(frame, name)
    start = int(len(values) * float(drawn.choice([0.0, 0.3, 0.7])))
    values[start:] = drawn.choice(values[~np.isnan(values)])
    return _with(frame, **{name: values})


def _swapped(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    names = [k.name for k in champion.stream.features if k.dtype == "float"]
    first, second = (str(name) for name in drawn.choice(names, 2, replace=False))
    return _with(frame, **{first: _values(frame, second), second: _values(frame, first)})


def _permuted(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    name = _number(champion, drawn)
    values = _values(frame, name)
    hit = np.flatnonzero(drawn.random(len(values)) < float(drawn.choice([0.5, 1.0])))
    values[hit] = values[drawn.permutation(hit)]
    return _with(frame, **{name: values})


def _clipped(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    """Saturate a column below, or above, one of its quantiles."""
    name = _number(champion, drawn)
    values = _values(frame, name)
    edge = np.nanquantile(values, float(drawn.choice([0.25, 0.5, 0.75])))
    return _with(
        frame, **{name: np.maximum(values, edge) if drawn.random() < 0.5 else np.minimum(values, edge)}
    )


def _unseen(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
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


def _reweighted(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
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


def _regional(champion: Champion, frame: pl.DataFrame, drawn: _Random) -> Shifted:
    """Flip labels in the upper part of some column."""
    values = _values(frame, _number(champion, drawn))
    inside = values > np.nanquantile(values, float(drawn.choice([0.6, 0.8, 0.9])))
    flip = inside & (drawn.random(frame.height) < float(drawn.choice([0.0, 0.1, 0.3, 0.6])))
    return Shifted(frame.with_columns(label=frame["label"] != pl.Series(flip)), frame)


TUNING: dict[str, _Family] = {
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

FIGURE: dict[str, _Family] = {
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
